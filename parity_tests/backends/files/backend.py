"""Recorded nets as the source of one side of a comparison."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from parity_tests.backends.executed import Layout, Traces
from parity_tests.backends.files.recorded import RecordedNet, RecordedSegments
from parity_tests.backends.leaves import Leaf, ParityError
from parity_tests.backends.runs import Arrays
from parity_tests.pairing.graph import OperationGraph
from parity_tests.pairing.normalise import normalise
from parity_tests.pairing.segments import Slot
from parity_tests.reporting.verdicts import Side


class RecordedSource:
    """What `Source` asks of a net, of one that was run elsewhere."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def set_apart(self, net: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def leaves(self, net: Any) -> list[Leaf]:
        """None of a whole net, whose modules were not recorded; the segments of a cut one."""
        return net.leaves() if isinstance(net, RecordedSegments) else []

    def with_values(self, net: Any, values: Mapping[tuple[str, str], np.ndarray]) -> Any:
        return net.with_values(values)

    def fixed(self, net: Any) -> dict[str, Any]:
        return {}

    def constants(self, net: Any) -> dict[str, Any]:
        if self.side == Side.TORCH:  # which is run here, of tensors
            return {}
        return {name: values for name, values, trained in self.held(net) if not trained}

    def held(self, net: RecordedNet) -> Iterator[tuple[str, np.ndarray, bool]]:
        for name, values in net.parameters.items():
            yield name, values, name in net.state["trainable"]

    def full(self, like: np.ndarray, shape: tuple[int, ...], number: float) -> np.ndarray:
        return np.full(shape, number, like.dtype)

    def array(self, values: np.ndarray, dtype: str, like: Any = None) -> np.ndarray:
        return values.astype(dtype)

    def trace(self, net: RecordedNet, inputs: Arrays, *, train: bool) -> OperationGraph:
        """The graph that was recorded. Raises ParityError for a mode in which it did not run."""
        if train not in net.graphs:
            raise ParityError(f"it did not train where it was recorded: {net.state['untrained']}")
        return net.graphs[train]

    def normalise(
        self, graph: OperationGraph, *, ordered: bool = False, apart: Container[int] = ()
    ) -> OperationGraph:
        if self.side == Side.GLUON:
            from parity_tests.backends.gluon.tracing.vocabulary import read_gluon

            return normalise(graph, read_gluon, ordered=ordered, apart=apart)
        from parity_tests.backends.torch.tracing.vocabulary import read_torch

        return normalise(graph, read_torch, ordered=ordered, apart=apart)

    def rebuild(
        self,
        net: RecordedNet,
        traces: Traces,
        layouts: Sequence[Layout],
        outputs: Sequence[tuple[Slot, tuple[int, ...]]],
    ) -> RecordedSegments:
        return RecordedSegments(net, traces, layouts, outputs)
