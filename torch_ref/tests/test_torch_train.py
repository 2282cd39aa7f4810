"""The mirror's train command: the same flags, files and refusals as Gluon's."""

import json
from pathlib import Path

import pytest

from cnn_harness.tests.runs import rows as rows_of
from cnn_harness.tests.runs import same_end
from torch_ref import train
from torch_ref.models import MODELS
from torch_ref.training.recipes import DEFAULTS

QUICK = ["--epochs", "1", "--batch-size", "200"]


def test_it_learns_and_leaves_the_same_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(["--out", str(run), "--epochs", "2"]) == 0
    assert rows_of(run)[-1]["test_acc"] > 0.9
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json", "metrics.jsonl", "best.safetensors", "last", "curves.png", "predictions.png",
    }  # fmt: skip
    assert json.loads((run / "config.json").read_text())["framework"] == "torch"


@pytest.mark.parametrize(
    "options",
    [["--model", "mnist_bn_cnn", "--epochs", "1"], ["--model", "lenet5", "--epochs", "1"],
     ["--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9", "--nesterov", "--wd", "1e-4",
      "--epochs", "2"]],
)  # fmt: skip
def test_other_models_and_optimizers_learn(options: list[str], tmp_path: Path) -> None:
    assert train.main([*options, "--out", str(tmp_path / "run")]) == 0
    assert rows_of(tmp_path / "run")[-1]["test_acc"] > 0.7


@pytest.mark.parametrize(
    "options",
    [["--lr", "0.003"],
     ["--ema", "0.9", "--mixup", "0.2", "--label-smoothing", "0.1", "--clip-grad", "0.5",
      "--grad-accum-steps", "3", "--augment", "random-crop,color-jitter", "--patience", "9"],
     pytest.param(["--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9"],
                  marks=pytest.mark.slow),
     pytest.param(["--optimizer", "sgd", "--lr", "0.1"], marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_bytes(options: list[str], tmp_path: Path) -> None:
    argv = ["--batch-size", "200", "--schedule", "constant", *options]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "2", "--out", str(whole)]) == 0
    assert train.main([*argv, "--epochs", "1", "--out", str(parts)]) == 0
    assert train.main(["--resume", "--epochs", "2", "--out", str(parts)]) == 0
    same_end("torch_ref", whole, parts)


def test_every_model_has_a_default_of_its_own_name() -> None:
    assert {config.model for config in DEFAULTS.values()} == set(DEFAULTS) == set(MODELS)


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (["--model", "resnet"], 2, "vgg16_bn"),
        (["--recipe", "doc-9"], 2, "doc-0"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--ctx", "gpu:0,1"], 2, "one device"),
        (["--ctx", "gpu:63"], 2, "GPUs"),
        (["--model", "alexnet"], 1, "least input size"),
        (["--dataset", "folder:nowhere"], 1, "nowhere"),
        (["--optimizer", "sgd", "--lr", "1e12", *QUICK], 1, "the loss became"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], code: int, word: str, tmp_path: Path, refused
) -> None:
    refused(train.main, [*argv, "--out", str(tmp_path / "run")], code, word)


@pytest.mark.parametrize("name", ["lenet5", "mnist_bn_cnn"])
def test_best_parameters_load_into_a_net_of_the_same_model(tmp_path: Path, name: str) -> None:
    import torch

    from cnn_harness.runfolder import RunFolder
    from torch_ref.models import get_model
    from torch_ref.training.checkpoint import load_parameters, save_best

    net, again = get_model(name), get_model(name)
    save_best(RunFolder(tmp_path), net)
    load_parameters(again, tmp_path / "best.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_weights_that_do_not_fit_the_config_are_named(tmp_path: Path) -> None:
    from cnn_harness.errors import CommandError
    from cnn_harness.progress import save_arrays
    from torch_ref.models import get_model
    from torch_ref.training.checkpoint import load_parameters

    state = get_model("lenet").state_dict()
    save_arrays({name: value.numpy() for name, value in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CommandError, match=r"of features.*lenet5 as described there takes .*; put"):
        load_parameters(get_model("lenet5"), tmp_path / "x.safetensors")


def test_gluons_run_is_not_resumed(tmp_path: Path, capsys, refused) -> None:
    assert train.main([*QUICK, "--out", str(tmp_path / "run")]) == 0
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"torch"', '"gluon"', 1))
    capsys.readouterr()
    refused(train.main, ["--resume", "--out", str(tmp_path / "run")], 2, "a run of gluon")


def test_a_bad_out_is_found_before_the_data_are_read(refused, tmp_path: Path) -> None:
    data = ["--dataset", f"folder:{tmp_path / 'none'}"]
    refused(
        train.main,
        [*data, "--out", str(tmp_path / "p\udcff")],
        2,
        "p\\udcff: the name is not UTF-8",
    )
    assert not list(tmp_path.iterdir())
