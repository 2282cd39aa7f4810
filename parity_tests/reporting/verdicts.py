"""The words of a verdict, each one of an enumeration; the values are what reports and files hold.

`Level`, `Check`, `Side`, `Mode` and `Status` are strings too: they print and compare as their
values, and JSON holds those.
"""

from __future__ import annotations

from enum import StrEnum


class Level(StrEnum):
    """What is compared; in the order in which a cause comes before its effects."""

    STRUCTURE = "structure"
    WEIGHTS = "weights"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    TRAINING = "training"
    ARTEFACTS = "artefacts"
    MULTI_DEVICE = "scale"  # as command lines, report.json and older reports call it
    DATA = "data"
    LOSS = "loss"  # of the gate alone: the loss on fixed logits
    SELF_TEST = "self-test"  # of the fault catalogue alone: a fault of the checker itself
    NONE = ""  # nothing was compared, or a fault was not caught


# Those that a report has: the first divergence is the first here.
LEVELS: tuple[Level, ...] = tuple(
    level for level in Level if level not in (Level.LOSS, Level.SELF_TEST, Level.NONE)
)


class Status(StrEnum):
    """What became of a comparison."""

    OK = "ok"
    DIVERGED = "diverged"
    NOT_COMPARED = "not compared"
    NOTE = "note"  # a difference that is expected, and said

    @property
    def failed(self) -> bool:
        return self in (Status.DIVERGED, Status.NOT_COMPARED)


class Check(StrEnum):
    """Which comparison it was."""

    NONE = ""
    # of values and of their places
    VALUE = "value"
    TRANSFER = "transfer"
    ROUND_TRIP = "round trip"
    SAVED = "saved"  # in a file, and loaded again
    # of operations
    LOCAL = "local"  # both sides given the same input
    INHERITED = "inherited"  # each side's own stream
    STREAM = "stream"  # the gate's word for a side's own stream, compared with itself
    # of optimizers
    EQUAL_BITS = "equal bits"
    SCHEDULE = "schedule"
    # of training
    RESYNCHRONISED = "resynchronised"
    FREE_RUNNING = "free-running"
    WHOLE_RECIPE = "whole recipe"
    FEATURE = "feature"  # of the training loops
    # of several devices
    IN_TURN = "in turn"
    WHOLE = "whole"
    WHOLE_RESYNCHRONISED = "whole resynchronised"
    WHOLE_FREE_RUNNING = "whole free-running"
    # of what a Gluon net is turned into
    HYBRIDIZED = "hybridized"
    STATIC = "static"
    FILES = "files"
    SYMBOL_BLOCK = "SymbolBlock.imports"
    MODULE = "mx.mod.Module"
    ONNX_RUNTIME = "ONNX Runtime"
    OPENVINO = "OpenVINO"
    TORCH_IMPORT = "PyTorch import"


class Side(StrEnum):
    """Whose values were judged."""

    GLUON = "gluon"
    TORCH = "torch"
    NONE = ""  # both at once

    @property
    def framework(self) -> str:
        """As sentences name it: Gluon, torch."""
        return "Gluon" if self is Side.GLUON else self.value


class Mode(StrEnum):
    """How the net ran."""

    INFERENCE = "inference"
    TRAIN = "train"
    NONE = ""
