"""The layers that behave differently while training.

Their parameters arrive as arguments: the root module holds them, under MXNet's own names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _channels(axis: int, x: Tensor) -> int:
    """The channel axis of x counted from the left; torch's ONNX exporter needs it so."""
    return axis + x.dim() if axis < 0 else axis


def _all_but_channels(x: Tensor) -> list[int]:
    axes = list(range(x.dim()))
    axes.pop(1)
    return axes


class BatchNorm(nn.Module):
    """MXNet's BatchNorm over channel axis `axis`.

    In training it normalises with the batch's mean and biased variance, and keeps
    `momentum·running + (1 − momentum)·batch` of both, the variance biased too (torch keeps the
    unbiased one). MXNet on the CPU updates the running values in backward; here it happens in
    forward. `momentum` and `1 − momentum` are rounded to float32, as MXNet's are.
    """

    def __init__(self, eps: float, momentum: float, use_global_stats: bool, axis: int) -> None:
        super().__init__()
        self.eps = eps
        held = torch.tensor(momentum, dtype=torch.float32, device="cpu")
        self.momentum = float(held)
        self.rest = float(1 - held)
        self.use_global_stats = use_global_stats
        self.axis = axis

    def extra_repr(self) -> str:
        return (
            f"eps={self.eps:g}, momentum={self.momentum:g}, "
            f"use_global_stats={self.use_global_stats}, axis={self.axis}"
        )

    def forward(
        self,
        x: Tensor,  # (N, C, ...) for axis 1
        gamma: Tensor | None,  # (C,); None where fix_gamma holds it at 1
        beta: Tensor,
        moving_mean: Tensor,
        moving_var: Tensor,
    ) -> Tensor:
        axis = _channels(self.axis, x)
        if axis != 1:
            x = x.movedim(axis, 1)
        if self.training and not self.use_global_stats:
            self.keep(x, moving_mean, moving_var)
            y = F.batch_norm(x, None, None, gamma, beta, True, 0.0, self.eps)
        else:
            y = F.batch_norm(x, moving_mean, moving_var, gamma, beta, False, 0.0, self.eps)
        if axis != 1:
            y = y.movedim(1, axis)
        return y

    def keep(self, x: Tensor, moving_mean: Tensor, moving_var: Tensor) -> None:
        """Fold the batch's mean and biased variance into the running ones."""
        with torch.no_grad():
            axes = _all_but_channels(x)
            var, mean = torch.var_mean(x, axes, correction=0)
            moving_mean.copy_(moving_mean * self.momentum + mean * self.rest)
            moving_var.copy_(moving_var * self.momentum + var * self.rest)


class BatchNormWithStatistics(BatchNorm):
    """BatchNorm with `output_mean_var`: (y, mean, 1/sqrt(var + eps)) of what it normalised with."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor,
        moving_mean: Tensor,
        moving_var: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        axis = _channels(self.axis, x)
        if axis != 1:
            x = x.movedim(axis, 1)
        if self.training and not self.use_global_stats:
            with torch.no_grad():  # MXNet sends back the gradient of y alone
                var, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
            self.keep(x, moving_mean, moving_var)
            y = F.batch_norm(x, None, None, gamma, beta, True, 0.0, self.eps)
        else:
            mean, var = moving_mean.clone(), moving_var
            y = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, self.eps)
        scale = torch.rsqrt(var + self.eps)
        if axis != 1:
            y = y.movedim(1, axis)
        return y, mean, scale


class Dropout(nn.Module):
    """Dropout with MXNet's extras: masks shared along `axes`, and `always` (in inference too)."""

    def __init__(self, p: float, axes: tuple[int, ...], always: bool) -> None:
        super().__init__()
        self.p = p
        self.axes = list(axes)
        self.always = always

    def extra_repr(self) -> str:
        return f"p={self.p:g}, axes={self.axes}, always={self.always}"

    def forward(self, x: Tensor) -> Tensor:
        active = self.training or self.always
        if len(self.axes) == 0:
            return F.dropout(x, self.p, active)
        mask = torch.ones_like(x)
        for axis in self.axes:
            mask = mask.narrow(axis, 0, 1)
        return x * F.dropout(mask, self.p, active)


class _Recurrent(nn.Module):
    """MXNet's RNN operator: layers of one kind, data (T, N, I), all parameters in one vector.

    The vector holds every weight first, layer by layer and forward before backward: input to
    gates, state to gates, and for a projected LSTM state to projection; then every bias.
    Dropout works between the layers, in training. With lengths (N,) each sequence ends at its own:
    what lies beyond is 0, and the states are those at its end. MXNet does this on a GPU only; on
    the CPU 1.9.1 takes no notice of the lengths in float32, and refuses them in float64.
    """

    def __init__(
        self,
        gates: int,
        state_size: int,
        num_layers: int,
        bidirectional: bool,
        p: float,
        projection_size: int = 0,
    ) -> None:
        super().__init__()
        self.gates = gates
        self.state_size = state_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.p = p
        self.projection_size = projection_size

    def extra_repr(self) -> str:
        return (
            f"{self.state_size}, num_layers={self.num_layers}, p={self.p:g}, "
            f"bidirectional={self.bidirectional}, projection_size={self.projection_size}"
        )

    def split(self, parameters: Tensor, inputs: int) -> list[Tensor]:
        """The vector as torch's list: weights, then biases, of each layer and direction."""
        directions = 2 if self.bidirectional else 1
        rows = self.gates * self.state_size
        out = self.projection_size if self.projection_size > 0 else self.state_size
        shapes: list[list[int]] = []
        for layer in range(self.num_layers):
            columns = inputs if layer == 0 else out * directions
            for _ in range(directions):
                shapes.append([rows, columns])
                shapes.append([rows, out])
                if self.projection_size > 0:
                    shapes.append([out, self.state_size])
        place = 0
        weights: list[Tensor] = []
        for shape in shapes:
            size = shape[0] * shape[1]
            weights.append(parameters.narrow(0, place, size).reshape(shape))
            place += size
        if parameters.numel() != place + 2 * rows * directions * self.num_layers:
            raise ValueError("RNN: its parameter vector does not fit its input and sizes")
        every: list[Tensor] = []
        each = 3 if self.projection_size > 0 else 2
        for number in range(self.num_layers * directions):
            every.append(weights[number * each])
            every.append(weights[number * each + 1])
            every.append(parameters.narrow(0, place, rows))
            every.append(parameters.narrow(0, place + rows, rows))
            if self.projection_size > 0:
                every.append(weights[number * each + 2])
            place += 2 * rows
        return every


def _state(x: Tensor, batch: int) -> Tensor:
    """(layers, N, H); a state whose batch is unknown is (layers, 1, H), the same for all."""
    return x.expand(x.size(0), batch, x.size(2)).contiguous()


def _unpacked(data: Tensor, packed: Tensor, sizes: Tensor, order: Tensor) -> Tensor:
    """A packed sequence's data as (T, N, H), 0 beyond each end, in the order of the batch."""
    inside = torch.arange(data.size(1), device=data.device) < sizes.unsqueeze(1)  # (T', N) sorted
    out = packed.new_zeros([inside.size(0), inside.size(1), packed.size(1)])
    out = out.masked_scatter(inside.unsqueeze(-1), packed)
    out = F.pad(out, [0, 0, 0, 0, 0, data.size(0) - out.size(0)])
    return out.index_select(1, torch.argsort(order))


def _packed(data: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows in time order, how many sequences each time has, the batch by falling length)."""
    whole = lengths.to(torch.int64)
    order = torch.argsort(whole, descending=True, stable=True)
    places = torch.arange(data.size(0), device=data.device).unsqueeze(1)
    inside = places < whole.index_select(0, order)  # (T, N)
    sizes = inside.sum(1)
    sizes = sizes[sizes > 0]
    rows = data.index_select(1, order)[inside]
    return rows, sizes.cpu(), order


def _with_one_more(weights: list[Tensor]) -> list[Tensor]:
    """A projected LSTM's weights with one unit more in its cells, which stays at 0."""
    out: list[Tensor] = []
    for place, weight in enumerate(weights):
        if place % 5 == 4:  # to the projection, (P, H)
            out.append(F.pad(weight, [0, 1]))
        else:  # to the gates, (4·H, …)
            rest = list(weight.shape[1:])
            gates = weight.reshape([4, -1] + rest)  # noqa: RUF005
            gates = F.pad(gates, [0, 0] * len(rest) + [0, 1])
            out.append(gates.reshape([-1] + rest))  # noqa: RUF005
    return out


class LSTM(_Recurrent):
    """LSTM, gates in the order input, forget, cell, output: (y, state, cell).

    torch takes states and cells of one size for those of an LSTM without projection: cells get one
    unit more then.
    """

    def forward(
        self,
        data: Tensor,  # (T, N, I)
        parameters: Tensor,
        state: Tensor,  # (layers·directions, N, H, or the projection's size)
        cell: Tensor,  # (layers·directions, N, H)
        lengths: Tensor | None = None,  # (N,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = self.split(parameters, data.size(2))
        n, batch = self.num_layers, data.size(1)
        drop, both = self.p, self.bidirectional
        h, c = _state(state, batch), _state(cell, batch)
        alike = self.projection_size == self.state_size
        if alike:
            weights, c = _with_one_more(weights), F.pad(c, [0, 1])
        if lengths is None:
            y, h, c = torch.lstm(data, [h, c], weights, True, n, drop, self.training, both, False)
            return y, h, c[..., : self.state_size] if alike else c
        rows, sizes, order = _packed(data, lengths)
        first = [h.index_select(1, order), c.index_select(1, order)]
        y, h, c = torch.lstm(rows, sizes, first, weights, True, n, drop, self.training, both)
        back = torch.argsort(order)
        y = _unpacked(data, y, sizes.to(data.device), order)
        h, c = h.index_select(1, back), c.index_select(1, back)
        return y, h, c[..., : self.state_size] if alike else c


class GRU(_Recurrent):
    """GRU, gates in the order reset, update, new: (y, state)."""

    def forward(
        self, data: Tensor, parameters: Tensor, state: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = self.split(parameters, data.size(2))
        n, h = self.num_layers, _state(state, data.size(1))
        drop, both = self.p, self.bidirectional
        if lengths is None:
            return torch.gru(data, h, weights, True, n, drop, self.training, both, False)
        rows, sizes, order = _packed(data, lengths)
        h = h.index_select(1, order)
        y, h = torch.gru(rows, sizes, h, weights, True, n, drop, self.training, both)
        y = _unpacked(data, y, sizes.to(data.device), order)
        return y, h.index_select(1, torch.argsort(order))


class RNN(_Recurrent):
    """The plain recurrent layer with tanh or ReLU: (y, state)."""

    def __init__(
        self, relu: bool, state_size: int, num_layers: int, bidirectional: bool, p: float
    ) -> None:
        super().__init__(1, state_size, num_layers, bidirectional, p)
        self.relu = relu

    def forward(
        self, data: Tensor, parameters: Tensor, state: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = self.split(parameters, data.size(2))
        n, h = self.num_layers, _state(state, data.size(1))
        drop, both = self.p, self.bidirectional
        if lengths is None:
            if self.relu:
                return torch.rnn_relu(data, h, weights, True, n, drop, self.training, both, False)
            return torch.rnn_tanh(data, h, weights, True, n, drop, self.training, both, False)
        rows, sizes, order = _packed(data, lengths)
        h = h.index_select(1, order)
        if self.relu:
            y, h = torch.rnn_relu(rows, sizes, h, weights, True, n, drop, self.training, both)
        else:
            y, h = torch.rnn_tanh(rows, sizes, h, weights, True, n, drop, self.training, both)
        y = _unpacked(data, y, sizes.to(data.device), order)
        return y, h.index_select(1, torch.argsort(order))


Call = Callable[..., Any]
Bodies = Sequence[Call]
Shapes = Sequence[tuple[int, ...]]


class Control(nn.Module):
    """A loop or a branch: what it runs are its children, modules that give one array or several.

    `steps` is the layer written out: it calls the children, and torch's functions through `call`
    alone, so that the inputs may be nodes of a graph as well as arrays.
    """

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = [tuple(x.shape) for x in inputs]
        bodies = [body.forward for body in self.children()]  # __call__ prints tracebacks
        return tuple(self.steps(bodies, inputs, shapes, lambda function, *given: function(*given)))

    def steps(self, bodies: Bodies, inputs: Sequence[Any], shapes: Shapes, call: Call) -> list[Any]:
        """What the layer gives for inputs of these shapes."""
        raise NotImplementedError

    def turns(self, shapes: Shapes) -> int:
        """How often the body runs."""
        return 1


def _several(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _chosen(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition, one element, is not 0, else b."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"{a.dtype}{tuple(a.shape)} beside {b.dtype}{tuple(b.shape)}")
    return torch.where(condition.reshape([]) != 0, a, b)


class Foreach(Control):
    """`body(*slices, *states, *others)` for each slice of the first `data` inputs.

    The body gives `outputs` arrays, which are stacked, and the states of the next turn.
    """

    def __init__(self, body: nn.Module, data: int, states: int, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.data, self.states, self.outputs = data, states, outputs

    def turns(self, shapes: Shapes) -> int:
        return int(shapes[0][0])

    def steps(self, bodies: Bodies, inputs: Sequence[Any], shapes: Shapes, call: Call) -> list[Any]:
        count = self.turns(shapes)
        if any(shape[0] != count for shape in shapes[: self.data]):
            raise ValueError(f"its data has {[shape[0] for shape in shapes[: self.data]]} slices")
        end = self.data + self.states
        states, others = list(inputs[self.data : end]), inputs[end:]
        rows: list[tuple[Any, ...]] = []
        for turn in range(count):
            slices = [
                call(torch.select, x, 0, turn) if len(shape) > 1  # a number is (1,) in MXNet
                else call(torch.narrow, x, 0, turn, 1)
                for x, shape in zip(inputs[: self.data], shapes, strict=False)
            ]  # fmt: skip
            found = _several(bodies[0](*slices, *states, *others))
            rows.append(found[: self.outputs])
            states = list(found[self.outputs :])
        return [*(call(torch.stack, list(row)) for row in zip(*rows, strict=True)), *states]


class While(Control):
    """At most `most` turns of a body, as long as a condition holds.

    `variables`, `reads` and `tests` are places among the inputs: of what changes, and of what body
    and condition take. Turns after the last change nothing and their rows are 0, so that nothing
    depends on a value: the layer exports. The last output is the number of turns.
    """

    def __init__(
        self,
        condition: nn.Module,
        body: nn.Module,
        tests: Sequence[int],
        reads: Sequence[int],
        variables: Sequence[int],
        outputs: int,
        most: int,
    ) -> None:
        super().__init__()
        self.condition, self.body = condition, body
        self.tests, self.reads, self.variables = list(tests), list(reads), list(variables)
        self.outputs, self.most = outputs, most

    def turns(self, shapes: Shapes) -> int:
        return self.most

    def steps(self, bodies: Bodies, inputs: Sequence[Any], shapes: Shapes, call: Call) -> list[Any]:
        values = list(inputs)
        active: Any = None
        turns: list[Any] = []
        rows: list[list[Any]] = []
        for _ in range(self.most):
            (holds,) = _several(bodies[0](*(values[place] for place in self.tests)))
            holds = call(torch.ne, call(torch.reshape, holds, []), 0)
            active = holds if active is None else call(torch.logical_and, active, holds)
            turns.append(active)
            found = _several(bodies[1](*(values[place] for place in self.reads)))
            rows.append([call(_chosen, active, y, call(torch.zeros_like, y))
                         for y in found[: self.outputs]])  # fmt: skip
            for place, y in zip(self.variables, found[self.outputs :], strict=True):
                values[place] = call(_chosen, active, y, values[place])
        stacked = [call(torch.stack, list(row)) for row in zip(*rows, strict=True)]
        count = call(torch.sum, call(torch.stack, turns))  # MXNet leaves the rows after it as is
        return [*stacked, *(values[place] for place in self.variables), count]


class Branch(Control):
    """Both branches, and of their results those that the condition takes: so it exports."""

    def __init__(
        self,
        condition: nn.Module,
        then: nn.Module,
        other: nn.Module,
        tests: Sequence[int],
        reads: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.condition, self.then, self.other = condition, then, other
        self.tests, self.reads = list(tests), [list(places) for places in reads]

    def steps(self, bodies: Bodies, inputs: Sequence[Any], shapes: Shapes, call: Call) -> list[Any]:
        (holds,) = _several(bodies[0](*(inputs[place] for place in self.tests)))
        sides = [
            _several(body(*(inputs[place] for place in places)))
            for body, places in zip(bodies[1:], self.reads, strict=True)
        ]
        return [call(_chosen, holds, a, b) for a, b in zip(*sides, strict=True)]
