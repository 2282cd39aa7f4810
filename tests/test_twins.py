"""`gluon_cnn` and `torch_ref` side by side: one set of names, one order, one signature each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TWINS = (
    "models/__init__.py", "models/base.py", "models/layers.py", "models/lenet.py",
    "models/lenet5.py", "models/alexnet.py", "models/cnn.py", "models/vgg.py", "models/digits.py",
    "training/__init__.py", "training/assembly.py", "training/average.py",
    "training/checkpoint.py", "training/devices.py", "training/gradients.py", "training/loop.py",
    "training/losses.py", "training/pretrained.py", "training/recipes.py", "training/workers.py",
    "launch.py", "train.py",
)  # fmt: skip

# What Gluon's word is called in torch, and the parameters that are Gluon's alone: the prefix of a
# block's name, and the module of functions for arrays or symbols.
WORDS = {
    "hybrid_forward": "forward", "trainer": "optimizer", "make_trainer": "make_optimizer",
    "devices": "device", "find_devices": "find_device", "to_devices": "to_device", "xs": "x",
    "ys": "y",
}  # fmt: skip
GLUONS_OWN = ("F", "prefix")
TORCHS_OWN = ("extra_repr",)  # what a module says of itself in a printed net

# file -> reason -> the names in which the twins differ for it. A name stands for its presence, its
# signature, its place and its mention in `__all__`; that of a class, for its methods too.
DIFFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "models/__init__.py": {
        "doc-1's arithmetic is a module that people use, and torch has its own": (
            "output_size", "same_padding",
        ),
    },
    "models/base.py": {
        "MXNet counts an array's values in 32 bits": ("_check_length",),
        "`gluon_cnn.summary` shows the paper's names": ("ClassicCNN.layer_names",),
    },
    "models/layers.py": {
        "the mirror's layers that compute what MXNet's compute": ("MXBatchNorm2d",),
        "torch gives a window's side as a number or as a pair": ("_side",),
    },
    "models/lenet5.py": {
        "the table is read off the paper in one, worked out in the other": (
            "TABLE_I", "_read_table",
        ),
        "Gluon passes parameters to forward, which makes an annotation and an initialiser": (
            "Tensor", "DigitBitmaps",
        ),
        "`gluon_cnn.summary` shows the paper's names": ("LeNet5.layer_names",),
        "each block says its window where its own framework's layers do": (
            "TrainableSubsampling.kernel", "TrainableSubsampling.output_shape",
            "TableConv2D.output_shape", "RBFOutput.output_shape",
            "TrainableSubsampling.kernel_size", "TrainableSubsampling.stride",
            "TrainableSubsampling.padding", "TableConv2D.stride", "TableConv2D.padding",
        ),
        "a buffer has to be declared, and the dense kernel is made where it is used": (
            "TableConv2D.places", "TableConv2D.dense_weight", "RBFOutput.bitmaps",
        ),
    },
    "models/digits.py": {
        "the drawings are the same, and read in two ways": ("HEIGHT", "WIDTH", "_read", "_PIXELS"),
    },
    "training/assembly.py": {
        "an exported or fused net may stand for the net in Gluon's objective": (
            "Objective.__init__",
        ),
        "Gluon's arrays are staged in a module of their own": ("Training.staging", "to_device"),
        "the mirror finds what is not drawn by name, Gluon by grad_req": ("FIXED",),
        "DistributedDataParallel sums gradients around the objective, Gluon's Trainer itself": (
            "Training.together", "make_optimizer",
        ),
    },
    "training/checkpoint.py": {
        "MXNet's parameters are its own file, loaded to the devices of a net": (
            "load_last", "load_parameters", "_save_parameters", "_arrays",
        ),
        "Gluon counts slots and updates by number, and per device": (
            "_names", "_slots", "_other_devices", "_restore_other_devices", "_restore_slots",
            "_as_tuple", "_named",
        ),
    },
    "training/devices.py": {
        "a GPU that MXNet's wheel cannot use is said, and another taken": (
            "why_cpu", "_first_usable", "_refusal",
        ),
    },
    "training/average.py": {
        "torch has a net's state in one dictionary": ("Average._state",),
    },
    "training/gradients.py": {
        "torch's gradients add up by themselves, and its processes exchange them in backward": (
            "Part", "accumulate", "clear",
        ),
    },
    "training/loop.py": {
        "Gluon's batches and sums are one array a device": ("Parts", "_read_sum"),
    },
    "training/losses.py": {
        "Gluon's cross-entropy is a block": ("CrossEntropy",),
    },
    "training/pretrained.py": {
        "Gluon reads three formats itself, and names that `transfer` maps for torch": (
            "_EXPORTED", "_FROM_TORCH", "_load_params", "_from_gluon", "_from_torch",
            "_from_pickle", "_names",
        ),
        "a frozen BatchNorm is an option of Gluon's layer, and the mode of torch's module": (
            "_norms", "train_mode",
        ),
    },
    "training/workers.py": {
        "MXNet's kvstore adds by keys and may round, and its exit waits for the others": (
            "_FIRST_KEY", "Alone.store", "Workers.__init__", "Workers._key",
            "Workers._require_float64", "join", "leave",
        ),
        "torch sums gradients in a wrapper of the objective, and raises where a process is lost": (
            "Alone.together", "Alone.joined", "Workers.together", "_sum",
        ),
    },
    "launch.py": {
        "MXNet's launcher starts servers too, on this machine and on others": (
            "LAUNCHERS", "PASSED_BY_SSH", "SERVE", "ZEROED", "_address", "_free_port", "_quiet",
            "read_hosts", "require_plain", "submit",
        ),
        "torchrun's processes meet in a store": ("_failed", "_listen"),
    },
    "train.py": {
        "Gluon's workers are watched by their launcher, torchrun's by each other": (
            "Options", "Options.stall_timeout",
        ),
    },
}  # fmt: skip


class Definitions:
    """What a module defines at its top level, and in its classes, in order."""

    def __init__(self, source: str) -> None:
        self.exported: list[str] = []
        self.signatures: dict[str, str] = {}  # qualified name -> signature
        self._read(ast.parse(source).body, "")

    def _read(self, body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.signatures[prefix + node.name] = "class"
                self._read(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                if node.name not in TORCHS_OWN:
                    self.signatures[prefix + node.name] = signature(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in (n for each in targets for n in ast.walk(each)):
                    if isinstance(name, ast.Name) and name.id == "__all__":
                        assert node.value is not None
                        self.exported = ast.literal_eval(node.value)
                    elif isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        self.signatures[prefix + name.id] = "constant"


def signature(function: ast.FunctionDef) -> str:
    """Names, order, kinds and defaults of the parameters: their types are the framework's."""
    if function.name == "forward":
        return "function"  # Gluon's takes the block's parameters along
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args]
    unset = len(given) - len(arguments.defaults)
    words = [_word(each, arguments.defaults[n - unset] if n >= unset else None)
             for n, each in enumerate(given)]  # fmt: skip
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    words += [f"*, {_word(each, default)}" for each, default in named]
    words += [f"*{each.arg}" for each in (arguments.vararg, arguments.kwarg) if each is not None]
    own = {f"{name}{default}" for name in GLUONS_OWN for default in ("", "=None")}
    return f"({', '.join(word for word in words if word not in own)})"


def _word(argument: ast.arg, default: ast.expr | None) -> str:
    return argument.arg + ("" if default is None else f"={ast.unparse(default)}")


def differences(ours: str, theirs: str) -> dict[str, str]:
    """Each name in which a source of Gluon's and one of torch's differ, and how."""
    words = re.compile(rf"\b({'|'.join(WORDS)})\b")
    one = Definitions(words.sub(lambda word: WORDS[word[0]], ours))
    other = Definitions(theirs)
    found = {}
    for here, there, where in ((one, other, "first"), (other, one, "second")):
        for name in [*here.exported, *here.signatures]:
            if name not in there.exported and name not in there.signatures:
                found[name] = f"in the {where} only"
    for name in set(one.signatures) & set(other.signatures):
        if one.signatures[name] != other.signatures[name]:
            found[name] = f"{one.signatures[name]} beside {other.signatures[name]}"
    for name in set(one.exported) ^ set(other.exported):
        found.setdefault(name, "exported by one only")
    for lists in ((one.exported, other.exported), (list(one.signatures), list(other.signatures))):
        common = [[name for name in names if name not in found] for names in lists]
        moved = [a for a, b in zip(*common, strict=False) if a != b]
        found.update(dict.fromkeys(moved, "in another place"))
    return found


@pytest.mark.parametrize("file", TWINS)
def test_twins_differ_where_it_is_written_down(file: str) -> None:
    ours, theirs = ((ROOT / room / file).read_text("utf-8") for room in ("gluon_cnn", "torch_ref"))
    found = differences(ours, theirs)
    told = [name for names in DIFFERENCES.get(file, {}).values() for name in names]
    untold = {n: how for n, how in found.items() if n not in told and n.split(".")[0] not in told}
    assert untold == {}
    assert sorted(set(told) - set(found)) == []  # the list holds nothing that is past


def test_every_module_that_both_have_is_compared() -> None:
    ours, theirs = (
        {
            path.relative_to(ROOT / room).as_posix()
            for path in (ROOT / room).rglob("*.py")
            if "tests" not in path.parts
        }
        for room in ("gluon_cnn", "torch_ref")
    )
    assert (ours & theirs) - {"__init__.py"} == set(TWINS)
    assert theirs - ours == {"optim.py", "transfer.py"}  # MXNet's own, and the way between them
    assert set(DIFFERENCES) <= set(TWINS)


GLUON = """
__all__ = ["A", "f"]
LIMIT = 3

class A:
    def hybrid_forward(self, F, x, weight): ...
    def run(self, x: int, *, trainer=None): ...

def f(x, devices, prefix=None): ...

def g(x): ...
"""
TORCH = """
__all__ = ["A", "f"]
LIMIT = 3

class A:
    def forward(self, x): ...
    def run(self, x: str, *, optimizer=None): ...
    def extra_repr(self): ...

def f(x, device): ...

def g(x): ...
"""


@pytest.mark.parametrize(
    ("before", "after", "seen"),
    [
        ("", "", {}),
        ('"A", "f"', '"f"', {"A": "exported by one only"}),
        ('"A", "f"', '"f", "A"', {"A": "in another place", "f": "in another place"}),
        ("LIMIT", "LEAST", {"LIMIT": "in the first only", "LEAST": "in the second only"}),
        ("LIMIT = 3", "a, LIMIT = 1, 3", {"a": "in the second only"}),
        ("*, opt", "opt", {"A.run": "(self, x, *, optimizer=None) beside "
                           "(self, x, optimizer=None)"}),
        ("=None", "=1", {"A.run": "(self, x, *, optimizer=None) beside "
                         "(self, x, *, optimizer=1)"}),
        ("def g(x)", "def g(y)", {"g": "(x) beside (y)"}),
        ("def g(x)", "def g(x, *rest)", {"g": "(x) beside (x, *rest)"}),
        ("class A:", "class A:\n    def own(self): ...", {"A.own": "in the second only"}),
    ],
)  # fmt: skip
def test_what_differs_is_seen(before: str, after: str, seen: dict[str, str]) -> None:
    assert differences(GLUON, TORCH.replace(before, after) if before else TORCH) == seen
