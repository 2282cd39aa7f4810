"""The models of MXNet's own zoo: a few at small inputs here, all 34 at full size when slow."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mxnet_files import load_symbol
from mxnet_files.checking.check import ALLOWED, CheckReport
from mxnet_files.checking.local import BOUND, NodeError
from mxnet_files.checking.oracle import Oracle
from mxnet_files.checking.zoo import MODELS, check_model, export_model, family, family_table, main
from mxnet_files.layers import BatchNorm
from mxnet_files.reading.params_file import read_params, strip_prefixes

# name -> input side. Together they hold every operator and pooling convention of the zoo
SMALL = {
    "resnet18_v1": 64,
    "resnet18_v2": 64,
    "mobilenet0.25": 64,
    "mobilenetv2_0.25": 64,
    "squeezenet1.1": 224,
    "densenet121": 224,
}


def judge(report: CheckReport) -> None:
    assert report.failures == report.remarks == ()
    assert len(report.local) == report.nodes > 20
    assert report.worst.units <= BOUND == 16
    assert report.ratio <= ALLOWED == 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_family(name: str, tmp_path: Path) -> None:
    report, _ = check_model(name, tmp_path, SMALL[name])
    judge(report)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["mobilenetv2_0.25", pytest.param("resnet18_v2", marks=pytest.mark.slow)]
)
def test_gradients(name: str, tmp_path: Path) -> None:
    """Training mode, float64: every parameter's gradient, and the moved statistics."""
    symbol, params = export_model(name, tmp_path, 64)
    arrays = strip_prefixes(read_params(params))[0]
    rng = np.random.default_rng(3)
    x, head = rng.normal(size=(2, 3, 64, 64)), rng.normal(size=(2, 1000))
    oracle = Oracle(symbol.read_text(), arrays, {"data": x}, backward=True)
    wanted = oracle.gradients([head])
    module = load_symbol(symbol, params).double().train()
    module(torch.from_numpy(x)).backward(torch.from_numpy(head))
    compared = 0
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for key, value in module.named_parameters():
        if value.requires_grad:
            assert value.grad is not None
            # some are sums that cancel to nothing, such as a shift before a BatchNorm
            bound = 1e-9 * np.abs(wanted[key]).max() + 1e-12 * largest
            assert np.abs(value.grad.numpy() - wanted[key]).max() < bound
            compared += value.numel()
    assert compared > 0.99 * sum(value.numel() for value in module.parameters())
    for key, array in oracle.auxiliary().items():
        np.testing.assert_allclose(module.get_buffer(key).numpy(), array, rtol=1e-9, atol=1e-12)


def test_all_models_are_listed() -> None:
    from mxnet.gluon.model_zoo import vision

    source = inspect.getsource(vision.get_model)
    assert len(MODELS) == 34
    assert sorted(MODELS) == sorted(re.findall(r"'([\w.]+)':", source))


@pytest.mark.filterwarnings("ignore")
def test_inception_imports_whole(tmp_path: Path) -> None:
    module = load_symbol(*export_model("inceptionv3", tmp_path))
    assert sum(value.numel() for value in module.parameters()) == 23_834_568


@pytest.mark.filterwarnings("ignore")
def test_statistics_are_not_trivial(tmp_path: Path) -> None:
    module = load_symbol(*export_model("resnet18_v1", tmp_path, 64))
    layers = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    moving = dict(module.named_buffers())
    assert len(moving) == 2 * len(layers) == 40
    for name, value in moving.items():
        assert float(value.std()) > 0
        assert float((value - (1 if name.endswith("var") else 0)).abs().mean()) > 0.01


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_import_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """eps off by one part in a thousand moves every BatchNorm by far more than rounding does."""
    genuine = BatchNorm.__init__

    def wrong(
        self: BatchNorm, eps: float, momentum: float, use_global_stats: bool, axis: int
    ) -> None:
        genuine(self, eps * 1.001, momentum, use_global_stats, axis)

    monkeypatch.setattr(BatchNorm, "__init__", wrong)
    report, _ = check_model("mobilenet0.25", tmp_path, 64)
    assert not report.ok
    bad = {error.op for error in report.local if not error.ok}
    assert bad == {"BatchNorm"}


def test_reports_fail_as_they_should() -> None:
    good = NodeError("a", "Convolution", 3.0, exact=False)
    report = CheckReport(nodes=1, local=(good,), mxnet_error=1e-6, import_error=1e-6)
    assert report.ok
    far = replace(report, local=(replace(good, units=16.1),))
    assert far.failures == ("Convolution a is 16.1 units from MXNet",)
    rounded = replace(report, local=(NodeError("r", "Activation", 0.1, exact=True),))
    assert not rounded.ok
    for broken in (
        replace(report, nodes=2),
        replace(report, import_error=9e-6),
        replace(report, import_error=float("nan")),
        replace(report, local=(replace(good, units=float("nan")),)),
    ):
        assert len(broken.failures) == 1


def test_families_show_the_worst_of_theirs() -> None:
    assert [family(name) for name in ("resnet18_v1", "vgg11_bn", "mobilenetv2_0.5")] == [
        "ResNet v1", "VGG with BN", "MobileNet v2",
    ]  # fmt: skip
    assert len({family(name) for name in MODELS}) == 10
    small = NodeError("a", "Convolution", 3.0, exact=False)
    large = NodeError("b", "Pooling", 9.5, exact=False)
    good = CheckReport(nodes=1, local=(small,), mxnet_error=1e-6, import_error=1e-6)
    bad = replace(good, local=(large, small), nodes=2, import_error=3e-6)
    (line,) = family_table({"vgg11": good, "vgg16": bad, "vgg13": good})[2:]
    assert line == "| VGG | 3 | 4 | 9.5 (Pooling) | 3.00 |"


def test_a_comparison_that_shows_little_says_so() -> None:
    from mxnet_files.checking.check import find_remarks

    assert find_remarks(np.array([1.0, 2.0])) == []
    (constant,) = find_remarks(np.array([1.0, 1.0]))
    assert constant.startswith("MXNet's output is the same number everywhere (1): ")
    assert "--data" in constant
    (partly,) = find_remarks(np.array([1.0, np.nan, 2.0]))
    assert partly.startswith("some outputs are infinite or NaN")
    (wholly,) = find_remarks(np.array([np.inf, np.nan]))
    assert wholly.startswith("no output is finite")


@pytest.mark.filterwarnings("ignore")
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mobilenet0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| model |")
    assert lines[2].startswith("| mobilenet0.25 | 84 |")
    assert lines[4].startswith("| family |")
    assert lines[6].startswith("| MobileNet v1 | 1 | 84 |")
    assert main(["mobilenet0.25", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    assert printed["models"]["mobilenet0.25"]["compared"] == 84
    assert main(["mobilenet3"]) == 2
    assert "unknown models mobilenet3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path) -> None:
    report, _ = check_model(name, tmp_path)
    judge(report)
