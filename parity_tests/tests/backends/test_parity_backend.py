"""One adapter a framework: both satisfy the protocol, and nobody else touches a framework."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from parity_tests.backends.base import SIDES, Backend, backend, backend_of, leaves_of
from parity_tests.backends.gluon.backend import GluonBackend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.backend import TorchBackend
from parity_tests.numerics.update_rules import Rule

PACKAGE = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("mxnet", "torch", "onnx", "onnxruntime")

# Modules of these folders that are of a framework by their subject: they plant faults in its
# layers, make its nets, read its files, or instrument the torch net that is the referee.
FOLDERS = ("levels", "faults", "gate")
SPECIFIC = {
    "faults/kinds/arithmetic.py", "faults/kinds/artefacts.py", "faults/kinds/batchnorm.py",
    "faults/kinds/optimizers.py", "faults/kinds/pairs.py", "faults/kinds/structure.py",
    "faults/kinds/training.py", "faults/self_test.py",
    "gate/fingerprint.py", "gate/mxnet2.py", "gate/record/subjects.py",
    "gate/record/user_pairs.py", "gate/shims.py",
    "levels/artefacts/expected.py", "levels/artefacts/exported.py", "levels/artefacts/files.py",
    "levels/artefacts/graphs.py", "levels/artefacts/hybridized.py",
    "levels/data.py", "levels/optimizer/schedules.py", "levels/multi_device/data_parallel.py",
    "levels/training/trials.py",
}  # fmt: skip


def touches_a_framework(source: str) -> bool:
    """Whether a module imports a framework, or what is behind a `Backend`, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    behind = tuple(f"parity_tests.backends.{side}" for side in SIDES)
    return any(name.split(".")[0] in FRAMEWORKS or name.startswith(behind) for name in names)


def touching(paths: Iterable[Path]) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in paths
        if touches_a_framework(path.read_text(encoding="utf-8"))
    }


def test_levels_faults_and_gate_know_only_backends() -> None:
    paths = [path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")]
    assert len(paths) > len(SPECIFIC)
    assert touching(paths) == SPECIFIC


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "def f():\n    from mxnet.gluon import nn",
        "from parity_tests.backends.gluon import runs",
        "from parity_tests.backends import torch",
        "import parity_tests.backends.torch.leaves",
    ],
)
def test_a_planted_import_is_seen(line: str) -> None:
    assert touches_a_framework(f"import numpy as np\n{line}\n")
    assert not touches_a_framework("import numpy\nfrom parity_tests.backends.base import backend\n")


# mypy checks these against the protocol, argument by argument
BACKENDS: list[Backend] = [GluonBackend(), TorchBackend()]


def test_both_frameworks_have_all_of_the_protocol() -> None:
    members = [name for name in vars(Backend) if not name.startswith("_")]
    assert len(members) > 15
    for one in BACKENDS:
        assert [name for name in members if not hasattr(one, name)] == []
        assert type(backend(one.side)) is type(one)
        for name in members:
            wanted = vars(Backend)[name]
            if inspect.isfunction(wanted):
                asked = set(inspect.signature(wanted).parameters) - {"self"}
                assert asked <= set(inspect.signature(getattr(one, name)).parameters), name


def dense(side: str) -> Any:
    if side == "torch":
        return torch.nn.Sequential(torch.nn.Linear(3, 2))
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(2, in_units=3))
    net.initialize()
    return net


@pytest.mark.parametrize("side", SIDES)
def test_values_are_put_into_copies_alone(side: str) -> None:
    net, one = dense(side), backend(side)
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    copied = one.with_values(net, {("0", "weight"): weight, ("0", "bias"): np.ones(2, np.float32)})
    x = np.eye(3, dtype=np.float32)
    run = one.run_net(copied, (x,), "float64")
    np.testing.assert_array_equal(run.outputs[0], weight.T.astype(np.float64) + 1)
    (leaf,) = one.leaves(net)
    assert not np.array_equal(leaf.tensors["weight"].read(), weight)
    other = one.leaf_with_values(leaf, {"weight": weight * 2})
    bias = leaf.tensors["bias"].read()
    alone = one.run_leaf(other, (x,), "float64", train=False)["output"]
    np.testing.assert_array_equal(alone, 2 * weight.T + bias.astype(np.float64))
    assert not np.array_equal(leaf.tensors["weight"].read(), weight * 2)


@pytest.mark.parametrize("side", SIDES)
def test_an_update_has_slots_in_common_units(side: str) -> None:
    rule = Rule("sgd", momentum=0.5)
    for make in backend(side).optimizers.values():
        optimized = backend(side).optimized({"w": np.ones(2, np.float32)}, rule, make)
        optimized.set_gradients({"w": np.array([4.0, -8.0], np.float32)})
        optimized.updater.update(0.25, 4)
        state = optimized.state()["w"]
        np.testing.assert_array_equal(state["mom"], [-0.25, 0.5])
        np.testing.assert_array_equal(state["weight"], [0.75, 1.5])
        own = optimized.updater.slots_of("w", common_units=False)["mom"]
        assert np.abs(own).tolist() in ([0.25, 0.5], [1.0, 2.0])


def test_what_is_no_net_is_refused() -> None:
    assert [backend_of(dense(side)).side for side in SIDES] == list(SIDES)
    with pytest.raises(ParityError, match="neither a Gluon Block nor a torch Module"):
        leaves_of(object())
