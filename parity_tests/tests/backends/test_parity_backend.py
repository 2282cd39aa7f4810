"""One adapter a framework: both satisfy the protocol, and nobody else touches a framework."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from parity_tests.backends.base import SIDES, Backend, Source, backend, backend_of, leaves_of
from parity_tests.backends.gluon.backend import GluonBackend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.backend import TorchBackend
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side

PACKAGE = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("mxnet", "torch", "onnx", "onnxruntime", "openvino")
LIBRARIES = {Side.GLUON: "mxnet", Side.TORCH: "torch"}

# Modules of these folders may be of a framework by their subject: they plant faults in its layers,
# make its nets, or read its files. Each says so, and why, in its docstring.
FOLDERS = ("levels", "faults", "gate")
SPECIFIC = re.compile(r"^Framework specific \(([a-z, ]+)\): \w.{15,}\.$", re.MULTILINE)


def frameworks_used(source: str) -> set[str]:
    """The frameworks that a module imports anywhere in it, or whose backend's inside it imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    inside = {f"parity_tests.backends.{side}": name for side, name in LIBRARIES.items()}
    direct = {name.split(".")[0] for name in names} & set(FRAMEWORKS)
    return direct | {to for start, to in inside.items() if any(n.startswith(start) for n in names)}


def frameworks_declared(source: str) -> set[str]:
    """The frameworks for which a module's docstring gives a reason."""
    sentences = SPECIFIC.findall(ast.get_docstring(ast.parse(source)) or "")
    assert len(sentences) <= 1
    return set(sentences[0].split(", ")) if sentences else set()


def test_levels_faults_and_gate_use_backends_or_say_why_not() -> None:
    paths = [path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")]
    assert paths
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    used = {path.relative_to(PACKAGE): frameworks_used(text) for path, text in sources.items()}
    declared = {p.relative_to(PACKAGE): frameworks_declared(text) for p, text in sources.items()}
    assert declared == used


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
    source = f'"""Text."""\nimport numpy as np\n{line}\n'
    assert frameworks_used(source) in ({"mxnet"}, {"torch"})
    assert frameworks_declared(source) == set()
    assert not frameworks_used("import numpy\nfrom parity_tests.backends.base import backend\n")


@pytest.mark.parametrize(
    ("sentence", "declared"),
    [
        ("Framework specific (mxnet, torch): each fault is a layer.", {"mxnet", "torch"}),
        ("Framework specific (torch).", set()),
        ("Framework specific (torch): why.", set()),
        ("It is framework specific.", set()),
    ],
)
def test_only_a_reason_declares_a_framework(sentence: str, declared: set[str]) -> None:
    assert frameworks_declared(f'"""Text.\n\n{sentence}\n"""\n') == declared
    assert frameworks_declared(f'"""Text."""\n# {sentence}\n') == set()


# mypy checks these against the protocol, argument by argument
BACKENDS: list[Backend] = [GluonBackend(), TorchBackend()]


def test_both_frameworks_have_all_of_the_protocol() -> None:
    known = {**vars(Source), **vars(Backend)}
    members = [name for name in known if not name.startswith("_")]
    assert len(members) > 15
    for one in BACKENDS:
        assert [name for name in members if not hasattr(one, name)] == []
        assert type(backend(one.side)) is type(one)
        for name in members:
            wanted = known[name]
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
