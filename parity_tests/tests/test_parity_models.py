"""Every model beside its twin, leaf by leaf, and every leaf and value of it."""

import numpy as np
import pytest

import gluon_cnn.models
import gluon_cnn.models.digits
import torch_ref.models
import torch_ref.models.digits
from parity_tests import check_parity
from parity_tests.cases.models import MODELS
from parity_tests.cases.pairs import Case, project_case
from parity_tests.reporting.report import Report

LEVELS = ("structure", "weights", "forward", "backward", "artefacts")
SMALL = [name for name, toy in MODELS.items() if not toy.resized]


def require(report: Report, levels: tuple[str, ...]) -> None:
    assert report.ok, str(report)
    assert report.first_divergence is None
    assert all(report.compared(level) for level in levels)
    percent = report.coverage.percent()
    assert percent
    assert set(percent.values()) == {100.0}


def test_both_packages_have_the_same_models() -> None:
    assert list(gluon_cnn.models.MODELS) == list(torch_ref.models.MODELS) == list(MODELS)
    for name, entry in gluon_cnn.models.MODELS.items():
        assert entry.input_shape == torch_ref.models.MODELS[name].input_shape
        least = gluon_cnn.models.least_input_size(name)
        assert least == torch_ref.models.least_input_size(name)
        toy = MODELS[name].input_shape
        assert toy[1] >= least if MODELS[name].resized else toy == entry.input_shape


def test_the_ten_bitmaps_are_the_same() -> None:
    np.testing.assert_array_equal(gluon_cnn.models.digits.BITMAPS, torch_ref.models.digits.BITMAPS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_its_twin_does(name: str) -> None:
    case = project_case(name)
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, LEVELS)
    require(report, LEVELS)
    worst = {level: report.worst(level) for level in LEVELS}
    # 16 u·s is the bound of every row but training's BatchNorm sums; none is even near it
    assert all((row.fraction or 0) < 1 for row in worst.values() if row is not None)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", ["lenet", "lenet5", "mnist_bn_cnn"])
def test_batches_of_one_and_more(name: str, batch: int) -> None:
    case = project_case(name, batch=batch, seed=3)
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels)
    require(report, ("structure", "weights", "forward", "backward"))


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_cnn", {"logit_relu": True}), ("lenet", {"classes": 3}), ("alexnet", {"classes": 2})],
)
def test_options_of_the_factories(name: str, options: dict) -> None:
    case = project_case(name, **options)
    report = check_parity(case.gluon_net, case.torch_net, case.inputs)
    require(report, ("structure", "weights", "forward", "backward"))


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_dropout_with_a_transplanted_mask(name: str) -> None:
    case = project_case(name)
    generator = np.random.default_rng(0)
    # the first dropout has the flattened features before it, the others a dense layer's units
    masks = {}
    for path, leaf in case.torch_net.named_modules():
        if type(leaf).__name__ == "Dropout":
            masks[path] = generator.random((len(case.inputs), _width(case, path))) < 0.5
    assert len(masks) == 2
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, masks=masks)
    require(report, ("structure", "weights", "forward", "backward"))


def _width(case: Case, path: str) -> int:
    import torch

    shapes: list[int] = []
    hook = case.torch_net.get_submodule(path).register_forward_hook(
        lambda module, inputs, output: shapes.append(inputs[0].shape[1])
    )
    with torch.no_grad():
        case.torch_net(torch.from_numpy(case.inputs))
    hook.remove()
    return shapes[0]


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_full_size(name: str) -> None:
    case = project_case(name, full=True, batch=1)
    levels = ("structure", "weights", "forward")
    require(check_parity(case.gluon_net, case.torch_net, case.inputs, levels=levels), levels)


def test_counts_of_the_full_sizes() -> None:
    """Parameters as the design lists them, in both packages, without giving them values."""
    import torch

    counts = {
        "lenet": 44_426, "lenet_sigmoid": 61_706, "lenet_linear": 61_610, "lenet5": 60_000,
        "cifar_cnn": 76_922, "mnist_bn_cnn": 2_328_298, "alexnet": 45_510_474,
        "vgg16": 134_301_514,
    }  # fmt: skip
    for name, count in counts.items():
        gluon_net = gluon_cnn.models.get_model(name)
        trainable = [p for p in gluon_net.collect_params().values() if p.grad_req != "null"]
        assert sum(int(np.prod(p.shape)) for p in trainable) == count, name
        with torch.device("meta"):
            torch_net = torch_ref.models.get_model(name)
        assert sum(p.numel() for p in torch_net.parameters()) == count, name
