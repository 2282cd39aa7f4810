"""Fine-tuning through the command: weights from every kind of file, frozen and slower parts."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnn_harness.errors import CommandError, UsageError
from cnn_harness.initial import Pretrained
from cnn_harness.progress import load_arrays
from cnn_harness.run_description import read_run, settings_of
from cnn_harness.tests.runs import photographs, same_end
from gluon_cnn import export, train
from gluon_cnn.models import get_model
from gluon_cnn.training import assembly
from gluon_cnn.training.pretrained import read_weights
from gluon_cnn.training.saved import open_run

QUICK = ["--batch-size", "1000", "--epochs", "1", "--augment", "none", "--ctx", "cpu"]


def _params(run: Path, name: str = "best.params") -> dict[str, np.ndarray]:
    return {key: value.asnumpy() for key, value in mx.nd.load(str(run / name)).items()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A run of LeNet on the embedded digits, which knows a little."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert train.main([*QUICK, "--batch-size", "200", "--out", str(out)]) == 0
    return out


def test_best_parameters_load_into_a_net_of_your_own(digits: Path) -> None:
    net = get_model("lenet")
    net.load_parameters(str(digits / "best.params"))
    x = mx.nd.random.uniform(shape=(3, 1, 28, 28))
    ours = open_run(digits, [mx.cpu()]).net(x).asnumpy()
    np.testing.assert_array_equal(net(x).asnumpy(), ours)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        ("params", "{}.{}.{}"), ("params", "net_{}_{}_{}"), ("params", "arg:net_{}_{}_{}"),
        ("safetensors", "{}.{}.{}"), ("safetensors", "{}_{}.{}"),
    ],
)  # fmt: skip
def test_names_are_read_as_they_are_written(
    suffix: str, name: str, digits: Path, tmp_path: Path
) -> None:
    arrays = {name.format(*n.split(".")): a for n, a in _params(digits).items()}
    path = tmp_path / f"x.{suffix}"
    if suffix == "params":
        mx.nd.save(str(path), {n: mx.nd.array(a) for n, a in arrays.items()})
    else:
        save_file(arrays, path)
    pretrained = read_weights(str(path))
    fitting = pretrained.fitting({n: a.shape for n, a in _params(digits).items()})
    assert pretrained.remarks == [f"10 of 10 arrays are from {path}"]
    for n, array in _params(digits).items():
        np.testing.assert_array_equal(fitting[n], array)


def test_a_converted_net_is_trained_on(digits: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "model.safetensors"
    save_file({n.replace(".", "_", 1): a for n, a in _params(digits).items()}, path)
    capsys.readouterr()
    argv = [*QUICK, "--init-from", str(path), "--lr", "1e-30", "--out", str(tmp_path / "run")]
    assert train.main(argv) == 0
    assert f"10 of 10 arrays are from {path}\n" in capsys.readouterr().err
    for name, array in _params(tmp_path / "run").items():
        np.testing.assert_array_equal(array, _params(digits)[name])


def test_frozen_features_stay_and_the_rest_learns(digits: Path, tmp_path: Path) -> None:
    argv = [*QUICK, "--init-from", str(digits), "--freeze", "features", "--wd", "0.1"]
    assert train.main([*argv, "--out", str(tmp_path / "run")]) == 0
    before, after = _params(digits), _params(tmp_path / "run")
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("features.")}
    slots = load_arrays(tmp_path / "run/last/optimizer.safetensors")
    assert {name.partition(".")[0] for name in slots} == {"classifier"}


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path, capsys) -> None:
    folder = photographs(tmp_path / "photographs", size=28)
    argv = ["--model", "mnist_bn_cnn", "--dataset", f"folder:{folder}", *QUICK]
    assert (
        train.main(
            [*argv, "--normalise", "unit", "--freeze", "features", "--out", str(tmp_path / "run")]
        )
        == 0
    )
    assert "--freeze features: nothing is loaded" in capsys.readouterr().err
    after = _params(tmp_path / "run")
    assert not after["features.1.running_mean"].any()
    assert (after["features.1.running_var"] == 1).all()
    again = ["--init-from", str(tmp_path / "run"), *argv[2:], "--out", str(tmp_path / "again")]
    assert train.main(again) == 0
    assert f"the model is mnist_bn_cnn, that of {tmp_path / 'run'}" in capsys.readouterr().err
    assert read_run(tmp_path / "again")["config"].normalise == "unit"  # as the run saw images


def test_what_is_frozen_and_was_not_loaded_is_said(digits: Path, tmp_path: Path, capsys) -> None:
    argv = [*QUICK, "--init-from", str(digits), "--model", "lenet_sigmoid", "--freeze"]
    argv += ["features,classifier.1.weight"]
    assert train.main([*argv, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "frozen: 5 arrays, classifier.1.weight, features.0.bias, features.0.weight, …\n" in said
    assert "frozen as they were drawn, not loaded: classifier.1.weight\n" in said


def test_what_was_loaded_learns_at_its_own_rate(digits: Path, tmp_path: Path) -> None:
    argv = [*QUICK, "--init-from", str(digits), "--opt", "sgd", "--lr", "0.1",
            "--sched", "constant", "--batch-size", "4000"]  # fmt: skip
    before, moved = _params(digits), {}
    for scale in ("1", "0.25"):
        run = tmp_path / scale
        assert train.main([*argv, "--init-lr-scale", scale, "--out", str(run)]) == 0
        moved[scale] = {n: a - before[n] for n, a in _params(run).items()}  # one update
    for name, whole in moved["1"].items():
        np.testing.assert_allclose(moved["0.25"][name], whole / 4, atol=1e-6)
        assert np.abs(whole).max() > 1e-5


def test_a_head_of_other_classes_is_new_and_said(digits: Path, tmp_path: Path, capsys) -> None:
    folder = photographs(tmp_path / "photographs", classes=3, size=28)
    argv = ["--dataset", f"folder:{folder}", "--image-size", "28", "--epochs", "1", "--ctx", "cpu"]
    capsys.readouterr()
    assert train.main([*argv, "--init-from", str(digits), "--out", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err.splitlines()
    assert f"6 of 10 arrays are from {digits}" not in err  # three colours: the first layer is new
    assert f"7 of 10 arrays are from {digits}" in err
    assert f"new: features.0.weight (6, 3, 5, 5), where {digits} has (6, 1, 5, 5)" in err
    head = f"the head is new: classifier.5 tells 3 classes apart, that of {digits} 10"
    assert head in err
    assert not [line for line in err if "classifier.5.bias" in line]  # it is of the head
    run = json.loads((tmp_path / "run/config.json").read_text())
    assert run["pretrained"]["loaded"] == sorted(
        set(_params(digits)) - {"features.0.weight", "classifier.5.weight", "classifier.5.bias"},
        key=list(_params(digits)).index,
    )


def test_fine_tuning_goes_on_exactly_without_its_source(digits: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.params"
    source.write_bytes((digits / "best.params").read_bytes())
    argv = [*QUICK, "--init-from", str(source), "--freeze", "features.0", "--init-lr-scale", "0.5",
            "--sched", "constant"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "2", "--out", str(whole)]) == 0
    assert train.main([*argv, "--out", str(parts)]) == 0
    source.unlink()
    assert train.main(["--resume", "--epochs", "2", "--out", str(parts)]) == 0
    same_end("gluon_cnn", whole, parts)


@pytest.mark.slow
def test_a_runs_configuration_file_fine_tunes_again(digits: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    argv = [*QUICK, "--init-from", str(digits), "--freeze", "features"]
    assert train.main([*argv, "--out", str(first)]) == 0
    assert train.main(["--config", str(first / "config.json"), "--out", str(second)]) == 0
    same_end("gluon_cnn", first, second)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--init-from", "nowhere"], "nowhere: no such file or folder"),
        (["--init-from", "{tmp}"], "expected a run with best.params"),
        (["--init-from", "{tmp}/x.onnx"], "a file named .params, .safetensors, .pt"),
        (["--init-from", "{tmp}/x.params"], "not a .params file of MXNet"),
        (["--init-from", "{tmp}/x.safetensors"], "x.safetensors cannot be loaded"),
        pytest.param(["--init-from", "{tmp}/x.pt"], "x.pt", marks=pytest.mark.slow),
        (["--init-from", "{run}", "--model", "mnist_bn_cnn"], "nothing in"),
        (["--init-lr-scale", "0.1"], "expected 1 without --init-from"),
        (["--freeze", "featres"], "did you mean features?"),
        (["--freeze", "*"], "leaves nothing to train"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], said: str, digits: Path, tmp_path: Path, refused
) -> None:
    for suffix in ("onnx", "params", "safetensors", "pt"):
        (tmp_path / f"x.{suffix}").write_bytes(b"0" * 99)
    (tmp_path / "y-0000.params").write_bytes(b"")
    (tmp_path / "z-0000.params").write_bytes(b"")
    words = [word.format(tmp=tmp_path, run=digits) for word in argv]
    refused(train.main, [*QUICK, *words, "--out", str(tmp_path / "run")], (1, 2), said)
    assert not (tmp_path / "run").exists()


def test_a_damaged_export_is_refused(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert export.main([str(digits), "--out", str(folder), "--engine", "mxnet"]) == 0
    assert settings_of(str(folder)) == {"model": "lenet"}
    assert settings_of(str(folder / "lenet-0000.params")) == {"model": "lenet"}
    (params,) = folder.glob("*-0000.params")
    content = bytearray(params.read_bytes())
    content[2000] ^= 1
    params.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        read_weights(str(folder))


@pytest.mark.parametrize(
    "change",
    [{"loaded": "x"}, {"shapes": []}, {"surprise": 1}, {"loaded": [1]}],
)
def test_a_tampered_record_of_what_was_loaded_is_refused(change: dict) -> None:
    values = Pretrained("x", "y", {"a": np.zeros((2, 3))}, ("a",)).to_dict()
    assert Pretrained.from_dict(values, "here").arrays["a"].shape == (2, 3)
    with pytest.raises(CommandError, match="here: pretrained"):
        Pretrained.from_dict({**values, **change}, "here")


def test_adam_heeds_the_rate_of_what_was_loaded(digits: Path) -> None:
    from cnn_data import load_dataset
    from cnn_harness.config import TrainConfig

    config = TrainConfig(init_from=str(digits), init_lr_scale=0.25, batch_size=1000)
    pretrained = read_weights(str(digits))
    pretrained.arrays = {n: a for n, a in pretrained.arrays.items() if n.startswith("features")}
    training = assembly.prepare(config, load_dataset("mnist5k"), "cpu", pretrained=pretrained)
    training.trainer.set_learning_rate(0.5)
    optimizer = training.trainer._optimizer
    names = {id(p): n for n, p in training.net._collect_params_with_prefix().items()}
    rates = {names[id(p)]: optimizer._get_lr(i) for i, p in enumerate(training.trainer._params)}
    assert {rate for name, rate in rates.items() if name.startswith("features")} == {0.125}
    assert {rate for name, rate in rates.items() if name.startswith("classifier")} == {0.5}
