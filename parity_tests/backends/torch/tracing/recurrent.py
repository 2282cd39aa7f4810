"""A recurrent layer in the steps that torch documents: what it rounds inside is seen there alone.

https://docs.pytorch.org/docs/2.13/generated/torch.nn.LSTM.html, GRU.html and RNN.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

Between = Callable[[torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
# The next state, of the sums of what the input and the last state give
_Step = Callable[[torch.Tensor, torch.Tensor, State, Between], State]


def in_steps(
    module: nn.Module,
    held: Mapping[str, torch.Tensor],
    args: Sequence[Any],
    between: Between,
    lengths: torch.Tensor | None = None,
) -> Any:
    """What a layer or cell gives with these parameters, every number inside being `between`'s.

    None where its input is no array. Dropout between its layers passes its input on. Of `lengths`
    each state is the one at its sequence's end, and what is behind it is 0.
    """
    x, *states = args
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x)  # in their own order, as the states are
        y, *last = in_steps(module, held, (padded, *states), between, lengths)
        if x.sorted_indices is not None:
            y, lengths = y[:, x.sorted_indices], lengths[x.sorted_indices.cpu()]
        return PackedSequence(pack_padded_sequence(y, lengths).data, *x[1:]), *last
    if not isinstance(x, torch.Tensor):
        return None
    step = _STEPS[getattr(module, "mode", type(module).__name__.removesuffix("Cell"))]
    if getattr(module, "nonlinearity", "tanh") == "relu":
        step = _STEPS["RNN_RELU"]
    given = states[0] if states else None
    start = [given] if isinstance(given, torch.Tensor) else [*(given or ())]
    if isinstance(module, nn.RNNCellBase):
        start = start or [x.new_zeros(*x.shape[:-1], module.hidden_size)] * _STATES[step]
        made = _next(step, x, tuple(start), held, "", between)
        return made if _STATES[step] > 1 else made[0]
    assert isinstance(module, nn.RNNBase)
    single = x.dim() == 2
    if single:
        x, start = x.unsqueeze(1), [h.unsqueeze(1) for h in start]
    elif module.batch_first and lengths is None:
        x = x.transpose(0, 1)
    ways = ("", "_reverse")[: 1 + module.bidirectional]
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: _STATES[step]]
    ends: list[State] = []
    for layer in range(module.num_layers):
        outputs = []
        for way in ways:
            state = tuple(h[len(ends)] for h in start)
            state = state or tuple(x.new_zeros(x.shape[1], size) for size in sizes)
            found = []
            for number in range(len(x)) if not way else reversed(range(len(x))):
                made = _next(step, x[number], state, held, f"_l{layer}{way}", between)
                if lengths is None:
                    state = made
                    found.append(state[0])
                    continue
                goes_on = (number < lengths).to(x.device)[:, None]
                pairs = zip(made, state, strict=True)
                state = tuple(torch.where(goes_on, new, old) for new, old in pairs)
                found.append(torch.where(goes_on, state[0], 0.0))
            outputs.append(torch.stack(found if not way else found[::-1]))
            ends.append(state)
        x = torch.cat(outputs, -1)
    last = [torch.stack(of_all) for of_all in zip(*ends, strict=True)]
    if single:
        x, last = x.squeeze(1), [h.squeeze(1) for h in last]
    elif module.batch_first and lengths is None:
        x = x.transpose(0, 1)
    return x, *last


def _next(
    step: _Step,
    x: torch.Tensor,
    state: State,
    held: Mapping[str, torch.Tensor],
    suffix: str,
    between: Between,
) -> State:
    ours, theirs = (
        between(F.linear(array, held[f"weight_{way}{suffix}"], held.get(f"bias_{way}{suffix}")))
        for way, array in (("ih", x), ("hh", state[0]))
    )
    h, *more = step(ours, theirs, state, between)
    if f"weight_hr{suffix}" in held:
        h = between(F.linear(h, held[f"weight_hr{suffix}"]))
    return h, *more


def _lstm(ours: torch.Tensor, theirs: torch.Tensor, state: State, between: Between) -> State:
    i, f, g, o = between(ours + theirs).chunk(4, -1)
    i, f, o = (between(torch.sigmoid(x)) for x in (i, f, o))
    c = between(between(f * state[1]) + between(i * between(torch.tanh(g))))
    return between(o * between(torch.tanh(c))), c


def _gru(ours: torch.Tensor, theirs: torch.Tensor, state: State, between: Between) -> State:
    (r, z, n), (r_of_h, z_of_h, n_of_h) = ours.chunk(3, -1), theirs.chunk(3, -1)
    r, z = (between(torch.sigmoid(between(x))) for x in (r + r_of_h, z + z_of_h))
    n = between(torch.tanh(between(n + between(r * n_of_h))))
    return (between(n + between(z * between(state[0] - n))),)


def _rnn(activation: Callable[[torch.Tensor], torch.Tensor]) -> _Step:
    def step(ours: torch.Tensor, theirs: torch.Tensor, state: State, between: Between) -> State:
        return (between(activation(between(ours + theirs))),)

    return step


_STEPS: dict[str, _Step] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN_TANH": _rnn(torch.tanh),
    "RNN_RELU": _rnn(torch.relu),
}
_STEPS["RNN"] = _STEPS["RNN_TANH"]
_STATES = {step: 2 if step is _lstm else 1 for step in _STEPS.values()}
