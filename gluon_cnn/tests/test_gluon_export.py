"""The export command: what it writes, what it proves, and that a fault leaves nothing behind."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from cnn_data import load_dataset
from cnn_harness.errors import CommandError
from gluon_cnn import evaluate, export, predict, train
from gluon_cnn.export import export_net, fresh_net, write_files
from gluon_cnn.exporting import proof
from gluon_cnn.exporting.exported import find_manifest, open_saved, read_manifest
from gluon_cnn.exporting.onnx_file import check_onnx
from gluon_cnn.exporting.proof import judge, observe
from gluon_cnn.exporting.real_images import real_images
from gluon_cnn.exporting.reload import BATCHES, LOADERS, Reloaded, reload
from gluon_cnn.exporting.runners import ENGINES, installed
from gluon_cnn.models import MODELS
from gluon_cnn.training.saved import SavedRun

WAYS = [(loader, batch) for loader in LOADERS for batch in BATCHES]

SMALL = [
    ("lenet", {"classes": 3}),
    ("lenet_sigmoid", {}),
    ("lenet_linear", {"in_channels": 4, "classes": 1}),
    ("lenet5", {"in_channels": 2}),
    ("cifar_cnn", {"input_size": 40}),
    ("mnist_bn_cnn", {"classes": 17}),
    ("vgg11_bn", {"input_size": 32, "classes": 4}),
]


def _fresh(model: str, seed: int = 1, **sizes: Any) -> SavedRun:
    """An untrained net whose BatchNorm statistics, biases and scales are not trivial."""
    saved = fresh_net(model, seed=seed, **sizes)
    rng = np.random.default_rng(seed)
    for name, parameter in saved.net._collect_params_with_prefix().items():
        role = name.rpartition(".")[2]
        if role in ("gamma", "running_var"):
            parameter.set_data(mx.nd.array(rng.uniform(0.5, 1.5, parameter.shape)))
        elif role in ("beta", "bias", "running_mean"):
            parameter.set_data(mx.nd.array(rng.uniform(-0.2, 0.2, parameter.shape)))
    return saved


@functools.cache
def _images(channels: int, size: int, fit: str) -> np.ndarray:
    saved = replace(fresh_net("cifar_cnn", 1, channels, size), fit=fit)
    assert saved.input_shape == (channels, size, size)
    return real_images(saved, max(BATCHES))[0]


def _inputs(saved: SavedRun) -> np.ndarray:
    """What `export_net` would run the net on."""
    images = _images(*saved.input_shape[:2], saved.fit)
    return saved.pixels.apply(images.transpose(0, 3, 1, 2))


def _written(saved: SavedRun, folder: Path, *, onnx: bool = True) -> tuple[Path, proof.Live]:
    """An export that nothing has proven yet, and the live net's outputs."""
    folder.mkdir(parents=True)
    live = observe(saved.net, _inputs(saved))
    return write_files(saved, folder, onnx=onnx), live


def _parameters(saved: SavedRun) -> dict[str, np.ndarray]:
    return {n: p.data().asnumpy() for n, p in saved.net.collect_params().items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    argv = ["--epochs", "1", "--batch-size", "200", "--image-size", "32", "--fit", "pad"]
    assert train.main([*argv, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def said(run: Path, tmp_path_factory) -> tuple[Path, list[str]]:
    """The run, exported by the command with ONNX, and what the command said."""
    out = tmp_path_factory.mktemp("exports") / "new" / "digits"
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert export.main([str(run), "--out", str(out), "--onnx"]) == 0
    return out, text.getvalue().splitlines()


@pytest.fixture(scope="module")
def exported(said: tuple[Path, list[str]]) -> Path:
    return said[0]


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copied")


# What is written


def test_a_run_becomes_four_files_and_nothing_else(exported: Path) -> None:
    names = ["lenet-0000.params", "lenet-symbol.json", "lenet.json", "lenet.onnx"]
    assert sorted(path.name for path in exported.iterdir()) == names
    assert [path.name for path in exported.parent.iterdir()] == ["digits"]
    assert [path.name for path in exported.parent.parent.iterdir()] == ["new"]


def test_the_command_says_what_it_compared(said: tuple[Path, list[str]]) -> None:
    out, lines = said
    engines = [ENGINES[name].label for name in installed()]
    ways = [*WAYS, *((e, n) for e in engines if e not in LOADERS for n in BATCHES)]
    told = [line for line in lines[:-1] if "images/s" not in line]
    assert [line.split(":")[0] for line in told] == [f"{w}, batch {n}" for w, n in ways]
    assert lines[0].endswith("bit-equal to the live net")
    assert all("from float64" in line for line in told[2:])
    speeds = [line.split(",")[0] for line in lines if re.search(r"images/s: .* at batch 64$", line)]
    assert speeds == engines
    assert lines[-1] == (
        f"lenet-0000.params, lenet-symbol.json, lenet.json, lenet.onnx are in {out}"
    )


def test_the_manifest_says_how_to_feed_the_net(run: Path, exported: Path) -> None:
    values = read_manifest(exported / "lenet.json")
    config = json.loads((run / "config.json").read_text())
    assert values["input"] == {
        "name": "data", "shape": ["batch", 1, 32, 32], "layout": "NCHW", "dtype": "float32",
    }  # fmt: skip
    assert values["output"]["shape"] == ["batch", 10]
    assert values["output"]["meaning"] == "logits"
    assert values["class_names"] == [str(digit) for digit in range(10)]
    assert values["smallest_wins"] is False
    assert values["fit"] == "pad"
    assert values["data"] == {
        "dataset": "mnist5k", "image_size": 32, "data_dir": None, "skip_damaged": False,
        "content_sha256": config["images"]["content_sha256"],
    }  # fmt: skip
    assert values["versions"]["mxnet"] == mx.__version__
    normalisation = values["normalisation"]
    assert normalisation["name"] == config["config"]["normalise"] == "standard"
    assert (normalisation["mean"], normalisation["std"]) == (config["mean"], config["std"])
    scale, shift = normalisation["scale"][0], normalisation["shift"][0]
    assert 255 * scale + shift == pytest.approx((1 - config["mean"][0]) / config["std"][0])
    assert set(values["files"]) == {"lenet-0000.params", "lenet-symbol.json", "lenet.onnx"}
    assert values["onnx"]["opset"] == 13


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        for model in ("lenet5", "mnist_bn_cnn") if copy == "a" else ("mnist_bn_cnn", "lenet5"):
            saved = _fresh(model, input_size=32 if model == "lenet5" else 20)
            _written(saved, tmp_path / copy / model)
    for model in ("lenet5", "mnist_bn_cnn"):
        for path in (tmp_path / "a" / model).iterdir():
            assert path.read_bytes() == (tmp_path / "b" / model / path.name).read_bytes()


def test_the_onnx_file_declares_what_was_promised(exported: Path) -> None:
    model = onnx.load(str(exported / "lenet.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert [value.name for value in model.graph.input] == ["data"]
    dims = [
        dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert dims == ["batch", 1, 32, 32]
    out = model.graph.output[0].type.tensor_type.shape.dim
    assert (out[0].dim_param, out[1].dim_value) == ("batch", 10)
    held = {tensor.name for tensor in model.graph.initializer}
    assert held == set(open_saved(exported, [mx.cpu()]).net.collect_params())


# What it proves


def test_every_small_model_is_proven_in_a_fresh_process(tmp_path: Path) -> None:
    subjects, exports = {}, {}
    for model, sizes in SMALL:
        saved = _fresh(model, **sizes)
        folder = tmp_path / model
        _, live = _written(saved, folder)
        check_onnx(folder / f"{model}.onnx", _parameters(saved), saved.input_shape)
        subjects[model], exports[folder] = live, _inputs(saved)
    for (model, live), found in zip(subjects.items(), reload(exports), strict=True):
        checks = judge(model, live, found, onnx=True)
        assert [(c.loader, c.batch) for c in checks] == WAYS
        assert [c.bound == 0 for c in checks] == [True, True, False, False, False, False]
        assert 0 < live.bound < 5e-5 * np.abs(live.referee).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size"),
    [(m, s) for m in MODELS if m.startswith("vgg") for s in (32, None)] + [("alexnet", None)],
)
def test_every_large_model_is_proven(model: str, size: int | None, tmp_path: Path) -> None:
    result = export_net(_fresh(model, input_size=size, classes=7), tmp_path / "out", onnx=True)
    assert len(result["checks"]) == (len(LOADERS) + 1) * len(BATCHES)  # and MXNet fused


def _edit_params(folder: Path, name: str, edit) -> None:
    path = str(folder / f"{name}-0000.params")
    arrays = mx.nd.load(path)
    edit(arrays)
    mx.nd.save(path, arrays)


def _edit_symbol(folder: Path, name: str, op: str, **attrs: str) -> None:
    path = folder / f"{name}-symbol.json"
    graph = json.loads(path.read_text())
    node = next(node for node in graph["nodes"] if node["op"] == op)
    assert node["attrs"] != {**node["attrs"], **attrs}
    node["attrs"].update(attrs)
    path.write_text(json.dumps(graph))


def _swap(a: str, b: str):
    def edit(arrays: dict) -> None:
        assert arrays[a].shape == arrays[b].shape
        arrays[a], arrays[b] = arrays[b], arrays[a]

    return edit


def _nudge(arrays: dict) -> None:
    """The last bit of one weight."""
    weight = arrays["arg:mnist_bn_cnn_classifier_4_weight"]
    values = weight.asnumpy()
    values[0, 0] = np.nextafter(values[0, 0], np.float32(9))
    weight[:] = values


BN = "mnist_bn_cnn_features_1_"
FILE_FAULTS = {
    "stale": (
        lambda f, n: _edit_params(f, n, lambda arrays: arrays.update(_stale())), "parameters",
    ),
    "swapped scales": (
        lambda f, n: _edit_params(f, n, _swap(f"arg:{BN}gamma", f"arg:{BN}beta")), BN + "gamma",
    ),
    "swapped statistics": (
        lambda f, n: _edit_params(f, n, _swap(f"aux:{BN}running_mean", f"aux:{BN}running_var")),
        BN + "running_mean",
    ),
    "lost statistics": (
        lambda f, n: _edit_params(f, n, lambda arrays: arrays.pop(f"aux:{BN}running_var")),
        BN + "running_var",
    ),
    "one bit": (lambda f, n: _edit_params(f, n, _nudge), "classifier_4_weight"),
    "activation": (lambda f, n: _edit_symbol(f, n, "Activation", act_type="tanh"), "bit-equality"),
    "epsilon": (lambda f, n: _edit_symbol(f, n, "BatchNorm", eps="2e-05"), "bit-equality"),
    "pooling": (lambda f, n: _edit_symbol(f, n, "Pooling", pool_type="avg"), "bit-equality"),
    "truncated": (lambda f, n: _truncate(f / f"{n}-0000.params"), "cannot be loaded"),
    "not a symbol": (lambda f, n: (f / f"{n}-symbol.json").write_text("{}"), "cannot be loaded"),
}  # fmt: skip


def _stale() -> dict:
    other = _fresh("mnist_bn_cnn", seed=2, input_size=20).net.collect_params()
    return {f"arg:{n}": p.data() for n, p in other.items() if p.grad_req != "null"}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_every_fault_in_the_files_is_found(tmp_path: Path, monkeypatch) -> None:
    """Planted while the files are written, so that the checksums are those of the faulty files."""
    saved = _fresh("mnist_bn_cnn", input_size=20)
    _, live = _written(saved, tmp_path / "clean", onnx=False)
    exports = {tmp_path / "clean": _inputs(saved)}
    write_symbol = export.write_symbol
    for fault, (plant, _) in FILE_FAULTS.items():
        folder = tmp_path / fault
        folder.mkdir()
        if fault == "not a symbol":  # it stops the writer itself
            write_files(saved, folder, onnx=False)
            plant(folder, "mnist_bn_cnn")
            _seal_again(folder)
        else:
            monkeypatch.setattr(export, "write_symbol", _planting(write_symbol, plant))
            write_files(saved, folder, onnx=False)
        exports[folder] = _inputs(saved)
    clean, *faulty = reload(exports)
    assert judge("mnist_bn_cnn", live, clean, onnx=False)
    for (fault, (_, word)), found in zip(FILE_FAULTS.items(), faulty, strict=True):
        with pytest.raises(CommandError) as caught:
            judge("mnist_bn_cnn", live, found, onnx=False)
        assert word in str(caught.value), fault
        assert "mnist_bn_cnn-0000.params" in str(caught.value)


def test_a_wrong_epsilon_in_the_onnx_file_is_beyond_the_bound(tmp_path: Path) -> None:
    """1e-3 is MXNet's operator's default, 1e-5 its layer's: the classic confusion."""
    saved = _fresh("mnist_bn_cnn", input_size=20)
    manifest, live = _written(saved, tmp_path / "out")
    model = onnx.load(str(manifest.with_suffix(".onnx")))
    found = _found(live)
    found["ONNX Runtime"] = _run_onnx(model, _inputs(saved))
    assert judge("mnist_bn_cnn", live, found, onnx=True)
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    epsilon = next(attribute for attribute in node.attribute if attribute.name == "epsilon")
    assert epsilon.f == pytest.approx(1e-5)
    epsilon.f = 1e-3
    found["ONNX Runtime"] = _run_onnx(model, _inputs(saved))
    with pytest.raises(CommandError, match=r"mnist_bn_cnn.onnx by ONNX Runtime, batch 1: .* off"):
        judge("mnist_bn_cnn", live, found, onnx=True)


def _run_onnx(model: Any, inputs: np.ndarray) -> Reloaded:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return Reloaded({n: session.run(None, {"data": inputs[:n]})[0] for n in BATCHES})


def _planting(write, plant):
    def planted(net, stem: Path) -> list[Path]:
        files = write(net, stem)
        plant(stem.parent, stem.name)
        return files

    return planted


def _seal_again(folder: Path) -> None:
    """Make the checksums those of the files as they are."""
    from gluon_cnn.exporting.exported import write_manifest

    (path,) = folder.glob("mnist_bn_cnn.json")
    values = json.loads(path.read_text())
    files = [folder / name for name in values["files"]]
    rest = {k: v for k, v in values.items() if k not in ("format", "files", "sha256")}
    write_manifest(path, rest, files)


def _found(live: proof.Live) -> dict[str, Reloaded]:
    return {
        loader: Reloaded({n: y.copy() for n, y in live.outputs.items()}, dict(live.parameters))
        for loader in LOADERS
    }


@pytest.mark.parametrize("loader", LOADERS)
def test_the_judge_refuses_what_differs(loader: str) -> None:
    saved = _fresh("lenet")
    live = observe(saved.net, _inputs(saved))
    assert len(judge("lenet", live, _found(live), onnx=True)) == 6
    too_far = np.float32(1.01 * live.bound)
    sign = np.where(live.outputs[8] > live.referee, 1, -1)
    wrong = {
        "another value": live.outputs[8] + too_far * sign,
        "not finite": np.where(np.eye(8, 10) > 0, np.nan, live.outputs[8]),
        "another shape": live.outputs[8][:7],
        "another dtype": live.outputs[8].astype(np.float64),
    }
    for what, outputs in wrong.items():
        found = _found(live)
        found[loader].outputs[8] = outputs.astype(outputs.dtype if "dtype" in what else np.float32)
        with pytest.raises(CommandError, match=f"{loader}, batch 8"):
            judge("lenet", live, found, onnx=True)
    for gone in (Reloaded(error="RuntimeError: no"), None):
        found = _found(live)
        if gone is None:
            del found[loader]
        else:
            found[loader] = gone
        with pytest.raises(CommandError, match=loader):
            judge("lenet", live, found, onnx=True)


def test_a_process_that_dies_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CommandError, match=r"reloads the files failed \(1\)"):
        reload({tmp_path: np.zeros((8, 1, 28, 28), np.float32)})


def test_a_net_that_proves_nothing_is_refused(tmp_path: Path) -> None:
    saved = _fresh("lenet")
    last = saved.net.classifier[5].weight
    last.set_data(last.data() * np.nan)
    with pytest.raises(CommandError, match="not finite"):
        export_net(saved, tmp_path / "out")
    last.set_data(mx.nd.zeros(last.shape))
    with pytest.raises(CommandError, match="same outputs"):
        export_net(saved, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_observing_leaves_the_parameters_as_they_were() -> None:
    saved = _fresh("mnist_bn_cnn")
    before = _parameters(saved)
    live = observe(saved.net, _inputs(saved))
    after = _parameters(saved)
    assert all(after[n].dtype == np.float32 for n in before)
    assert all(np.array_equal(after[n], before[n]) for n in before)
    assert live.referee.dtype == np.float64


def _alter_initialiser(model) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("classifier_5_bias"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] = np.nextafter(values[0], np.float32(9))
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _declare_parameter(model) -> None:
    tensor = model.graph.initializer[0]
    value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    model.graph.input.append(value)


def _bake_batch(model) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.ClearField("dim_param")
    dim.dim_value = 1


def _break_edge(model) -> None:
    model.graph.node[-1].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda m: setattr(m.opset_import[0], "version", 17), "opsets"),
        (_declare_parameter, "inputs"),
        (_bake_batch, "inputs"),
        (lambda m: m.graph.output[0].type.tensor_type.shape.dim[0].Clear(), "output"),
        (_alter_initialiser, "another lenet_classifier_5_bias"),
        (_break_edge, "onnx.checker"),
    ],
)
def test_the_onnx_check_finds_a_broken_promise(exported: Path, tmp_path: Path, edit, word) -> None:
    saved = open_saved(exported, [mx.cpu()])
    path = tmp_path / "lenet.onnx"
    model = onnx.load(str(exported / "lenet.onnx"))
    onnx.save(model, str(path))
    check_onnx(path, _parameters(saved), saved.input_shape)
    edit(model)
    onnx.save(model, str(path))
    with pytest.raises(CommandError, match=word):
        check_onnx(path, _parameters(saved), saved.input_shape)


# What a failure leaves


def test_a_failed_check_of_the_params_leaves_nothing(
    refused, run: Path, tmp_path: Path, monkeypatch
) -> None:
    swap = _swap("arg:lenet_features_0_bias", "arg:lenet_features_0_bias2")

    def plant(folder: Path, name: str) -> None:
        def edit(arrays: dict) -> None:
            arrays["arg:lenet_features_0_bias2"] = arrays["arg:lenet_features_0_bias"] * 1.5
            swap(arrays)
            del arrays["arg:lenet_features_0_bias2"]

        _edit_params(folder, name, edit)

    monkeypatch.setattr(export, "write_symbol", _planting(export.write_symbol, plant))
    argv = [str(run), "--out", str(tmp_path / "deep" / "out"), "--engine", "mxnet"]
    refused(export.main, argv, 1, "lenet_features_0_bias", "lenet-0000.params")
    assert not list(tmp_path.iterdir())


def test_a_failed_check_of_the_onnx_file_leaves_nothing(
    refused, run: Path, tmp_path: Path, monkeypatch
) -> None:
    write_onnx = export.write_onnx

    def planted(symbol, params, input_shape, path: Path) -> None:
        write_onnx(symbol, params, input_shape, path)
        model = onnx.load(str(path))
        relu = next(node for node in model.graph.node if node.op_type == "Relu")
        relu.op_type = "LeakyRelu"
        onnx.save(model, str(path))

    monkeypatch.setattr(export, "write_onnx", planted)
    (tmp_path / "out").mkdir()  # an empty folder may be there
    argv = [str(run), "--out", str(tmp_path / "out"), "--engine", "onnxruntime"]
    refused(export.main, argv, 1, "lenet.onnx by ONNX Runtime, batch 1", "at most")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_what_a_killed_export_left_is_removed(run: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f".out.{ended.pid}.part", f".out.{os.getpid()}9.part.old", ".out.x.part"):
        (tmp_path / name).mkdir()
    (tmp_path / f".out.{os.getppid()}.part").mkdir()  # of a process that goes on
    argv = [str(run), "--out", str(tmp_path / "out"), "--engine", "mxnet"]
    assert export.main(argv) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert f".out.{ended.pid}.part" not in left
    assert len(left) == 4


def test_a_folder_taken_meanwhile_is_left_alone(
    refused, run: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"

    def taken(*args, **kwargs) -> tuple[list, dict]:
        out.mkdir()
        (out / "mine").touch()
        return [], {}

    monkeypatch.setattr(export, "check_files", taken)
    refused(export.main, [str(run), "--out", str(out)], 1, "taken")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


# An export in the place of a run


def test_evaluate_and_predict_answer_as_the_run_does(
    run: Path, exported: Path, tmp_path: Path, capsys
) -> None:
    image = tmp_path / "digit.png"
    test = load_dataset("mnist5k").test
    Image.fromarray(test.images(np.array([5]))[0, :, :, 0]).resize((30, 31)).save(image)
    other = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(other)
    images = [str(image), str(other), "--top", "10"]
    by_another = ["--engine", "onnxruntime"]
    for command, rest in ((evaluate, []), (evaluate, by_another), (predict, images)):
        answers = []
        for folder in (run, exported):
            assert command.main([str(folder), *rest, "--json"]) == 0
            text = capsys.readouterr().out
            assert str(folder) in text
            answers.append(json.loads(text.replace(str(folder), "FOLDER")))
        assert answers[0]
        _same_but_for_rounding(*answers)
    (exported / "confusion.png").unlink()


def _same_but_for_rounding(one: Any, other: Any) -> None:
    """Equal, numbers with a fraction to 1e-5: a run's graph adds in blocks, a file's as it says.

    A probability moves by as large a part of itself as its logit moves in absolute terms, and 16 u
    of a logit of 10 are 1e-5. 1.1e-6 was met.
    """
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _same_but_for_rounding(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-9)
    else:
        assert one == other


def test_an_exported_lenet5_answers_by_the_smallest(tmp_path: Path, refused) -> None:
    saved = _fresh("lenet5")
    manifest, _ = _written(saved, tmp_path / "out", onnx=False)
    opened = open_saved(manifest.parent, [mx.cpu()])
    assert opened.net.smallest_wins is True
    assert opened.pixels == saved.pixels
    images = real_images(saved, 8)[0]
    expected = predict.probabilities(saved, images)
    assert np.array_equal(predict.probabilities(opened, images), expected)
    outputs = saved.net(mx.nd.array(_inputs(saved))).asnumpy()
    assert np.array_equal(expected.argmax(1), outputs.argmin(1))
    dataset = load_dataset("mnist5k", image_size=32, fit="pad")
    ours = evaluate.evaluate_run(opened, dataset, [mx.cpu()])
    theirs = evaluate.evaluate_run(saved, dataset, [mx.cpu()])
    assert ours["loss"] == theirs["loss"]
    assert np.array_equal(ours["confusion"], theirs["confusion"])
    refused(evaluate.main, [str(manifest.parent)], 2, "--dataset")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _rename_class(path: Path) -> None:
    path.write_text(path.read_text().replace('"7"', '"seven"'))


def _forget(path: Path) -> None:
    """A file whose sum is right and whose content is not enough."""
    values = json.loads(path.read_text())
    from gluon_cnn.exporting.exported import write_manifest

    write_manifest(path, {"name": "lenet"}, [path.parent / n for n in values["files"]])


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("lenet-0000.params", _flip, ["damaged", "sha256"]),
        ("lenet-symbol.json", _flip, ["damaged", "sha256"]),
        ("lenet.onnx", _flip, ["damaged", "sha256"]),
        ("lenet-0000.params", Path.unlink, ["missing"]),
        ("lenet-symbol.json", Path.unlink, ["missing"]),
        ("lenet.onnx", Path.unlink, ["missing"]),
        ("lenet.json", Path.unlink, ["missing"]),
        ("lenet.json", _rename_class, ["altered"]),
        ("lenet.json", _truncate, ["not JSON"]),
        ("lenet.json", lambda path: path.write_text("[]"), ["does not describe an export"]),
        ("lenet.json", _forget, ["lacks", "normalisation"]),
    ],
)
def test_a_damaged_export_is_refused_by_name(
    refused, copied: Path, tmp_path: Path, name: str, damage, words: list[str]
) -> None:
    (copied / "evaluation.json").write_text("{}")  # which evaluate writes there
    damage(copied / name)
    refused(predict.main, [str(copied), str(tmp_path / "x.png")], 1, name, *words)
    refused(evaluate.main, [str(copied)], 1, name, *words)


def test_files_outside_the_folder_are_not_opened(copied: Path) -> None:
    from gluon_cnn.exporting.exported import write_manifest

    shutil.copy(copied / "lenet.onnx", copied.parent / "other")
    values = read_manifest(copied / "lenet.json")
    write_manifest(copied / "lenet.json", values, [copied / "lenet.onnx"])
    values = json.loads((copied / "lenet.json").read_text())
    values["files"] = {"../other": values["files"]["lenet.onnx"]}
    from gluon_cnn.exporting import exported as module

    values["sha256"] = module._own_sum({k: v for k, v in values.items() if k != "sha256"})
    (copied / "lenet.json").write_text(json.dumps(values))
    with pytest.raises(CommandError, match="outside its folder"):
        read_manifest(copied / "lenet.json")


def test_other_json_beside_an_export_does_not_hide_it(copied: Path, refused) -> None:
    (copied / "notes.json").write_text("{}")
    assert find_manifest(copied) == copied / "lenet.json"
    (copied / "alexnet-symbol.json").write_text("{}")
    refused(evaluate.main, [str(copied)], 1, "several exports", "alexnet, lenet")


# The real images


def test_images_of_the_runs_own_data_when_at_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "d" / f"c{label}").mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 255, (28, 28), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / f"c{label}" / f"{i}.png")
    saved = replace(fresh_net("lenet", classes=2), dataset=f"folder:{tmp_path / 'd'}")
    images, origin = real_images(saved, 8)
    assert origin.startswith("folder")
    assert images.shape == (8, 28, 28, 1)
    test = load_dataset(saved.dataset or "", image_size=28).test
    assert (images[0] == test.images(np.array([0]))[0]).all()
    for path in (tmp_path / "d").rglob("1*.png"):
        path.unlink()
    assert 0 < len(load_dataset(saved.dataset or "", image_size=28).test) < 8
    assert real_images(saved, 8)[1] == "mnist5k"
    shutil.rmtree(tmp_path / "d")
    assert real_images(saved, 8)[1] == "mnist5k"


def test_without_its_data_a_run_gets_other_digits_in_each_channel(tmp_path: Path) -> None:
    saved = replace(
        fresh_net("cifar_cnn"), dataset="cifar10", data_dir=str(tmp_path), image_size=32
    )
    images, origin = real_images(saved, 8)
    assert (origin, images.shape, images.dtype) == ("mnist5k", (8, 32, 32, 3), np.uint8)
    assert (images[1:, ..., 0] == images[:-1, ..., 1]).all()
    assert not (images[..., 0] == images[..., 1]).all()
    assert images.max() > 200


# Usage


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["RUN", "--model"]),
        (["RUN", "--model", "lenet"], ["not allowed"]),
        (["--model", "resnet"], ["resnet", "vgg16_bn"]),
        (["--model", "lenet", "--classes", "0"], ["--classes"]),
        (["RUN", "--classes", "3", "--in-channels", "1"], ["--classes, --in-channels", "--model"]),
        (["RUN", "--seed", "-1"], ["--seed"]),
    ],
)
def test_bad_usage_is_2(refused, run: Path, tmp_path: Path, argv: list[str], words) -> None:
    argv = [str(run) if word == "RUN" else word for word in argv]
    refused(export.main, [*argv, "--out", str(tmp_path / "o")], 2, *words)
    assert not list(tmp_path.iterdir())


def test_an_out_that_is_taken_is_2(refused, run: Path, exported: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    refused(export.main, [str(run), "--out", str(exported)], 2, "holds an export")
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before
    refused(export.main, [str(run), "--out", str(run)], 2, "holds files")
    (tmp_path / "file").touch()
    refused(export.main, [str(run), "--out", str(tmp_path / "file")], 2, "is a file")
    argv = [str(run), "--out", str(tmp_path / "file" / "out")]
    refused(export.main, argv, 1, "file is a file; name another place")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "alexnet", "--input-size", "28"], ["features.", "least input size"]),
        (["--model", "lenet5", "--classes", "7"], ["ten"]),
        (["no/such/run"], ["no/such/run/config.json is missing"]),
    ],
)
def test_what_cannot_be_built_is_1(refused, tmp_path: Path, argv: list[str], words) -> None:
    refused(export.main, [*argv, "--out", str(tmp_path / "o")], 1, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_onnx_one_line_says_what_to_install(
    refused, run: Path, tmp_path: Path, monkeypatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    argv = [str(run), "--out", str(tmp_path / "o"), "--onnx"]
    refused(export.main, argv, 2, package, "pip install -e '.[cpu,onnx]'")
    assert not list(tmp_path.iterdir())


def test_a_newer_onnx_is_named_where_mxnet_came_without_help(
    refused, run: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delattr(onnx, "mapping", raising=False)
    monkeypatch.setattr("mxnet_compat.helps", lambda: False)
    argv = [str(run), "--out", str(tmp_path / "o"), "--onnx"]
    refused(export.main, argv, 1, "before 1.18", onnx.__version__)


def test_an_operator_without_translation_and_a_file_too_large(tmp_path: Path, monkeypatch) -> None:
    from gluon_cnn.exporting import onnx_file

    path = tmp_path / "x.onnx"
    symbol = mx.sym.erfinv(mx.sym.var("data"), name="inverse")
    with pytest.raises(CommandError, match="erfinv"):
        onnx_file.write_onnx(symbol, {}, (1, 4, 4), path)
    monkeypatch.setattr(onnx_file, "LARGEST", 10)
    with pytest.raises(CommandError, match="without --onnx"):
        onnx_file.write_onnx(symbol, {"w": mx.nd.zeros((3,))}, (1, 4, 4), path)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_fixed_gamma_counts_as_one_in_onnx(fixed: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from gluon_cnn.exporting import onnx_file

    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    symbol = mx.sym.BatchNorm(mx.sym.var("data"), fix_gamma=fixed, name="bn")
    values = {"gamma": 3.0, "beta": 0.5, "moving_mean": 0.25, "moving_var": 2.0}
    params = {f"bn_{name}": mx.nd.full((3,), value) for name, value in values.items()}
    onnx_file.write_onnx(symbol, params, data.shape[1:], tmp_path / "bn.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "bn.onnx")
    (found,) = session.run(None, {"data": data})
    auxiliary = {name: params[name] for name in symbol.list_auxiliary_states()}
    arguments = {name: value for name, value in params.items() if name not in auxiliary}
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(data), **arguments}, aux_states=auxiliary)
    (expected,) = executor.forward()
    np.testing.assert_allclose(found, expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_an_onnx_file_has_no_nodes_that_do_nothing(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from gluon_cnn.exporting import onnx_file

    x = mx.sym.var("data")  # of four axes
    for name in ("first", "second"):
        x = mx.sym.FullyConnected(x, num_hidden=3, flatten=True, name=name)
        x = mx.sym.Dropout(x, name=f"{name}_drop")
    symbol = mx.sym.Dropout(mx.sym.Activation(x, act_type="relu", name="relu"), name="last")
    data = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    shapes, _, _ = symbol.infer_shape(data=data.shape)
    arguments = {
        name: mx.nd.random.normal(shape=shape)
        for name, shape in zip(symbol.list_arguments(), shapes, strict=True)
    }
    params = {name: array for name, array in arguments.items() if name != "data"}
    onnx_file.write_onnx(symbol, params, data.shape[1:], tmp_path / "x.onnx")
    nodes = onnx.load(str(tmp_path / "x.onnx")).graph.node
    # the last one names the output
    assert [node.op_type for node in nodes] == ["Flatten", "Gemm", "Gemm", "Relu", "Identity"]
    (found,) = onnxruntime.InferenceSession(tmp_path / "x.onnx").run(None, {"data": data})
    (expected,) = symbol.bind(mx.cpu(), {**arguments, "data": mx.nd.array(data)}).forward()
    np.testing.assert_allclose(found, expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_json_is_one_object_with_every_comparison(capsys, tmp_path: Path) -> None:
    argv = ["--model", "lenet", "--classes", "3", "--seed", "4", "--out", str(tmp_path / "o")]
    assert export.main([*argv, "--engine", "mxnet", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == ["lenet-0000.params", "lenet-symbol.json", "lenet.json"]
    fused = [(ENGINES["mxnet"].label, batch) for batch in BATCHES]
    assert [(check["loader"], check["batch"]) for check in result["checks"]] == [*WAYS[:4], *fused]
    assert list(result["engines"]["measured"]) == ["mxnet"]
    assert all(check["error"] <= check["bound"] for check in result["checks"])
    assert result["images"] == {"dataset": "mnist5k", "batches": [1, 8]}
    assert read_manifest(tmp_path / "o" / "lenet.json")["class_names"] == ["0", "1", "2"]
