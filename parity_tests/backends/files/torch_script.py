"""Records the calls that a torch net makes, modules and functions alike, with every value.

As a script, behind `tape.py`, it needs Python 3.6, numpy and torch 1.13 or newer.
"""

import math
import os
import random
import sys
from contextlib import ExitStack
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from parity_tests.backends.files.tape import (
    Archive,
    RecordError,
    Tape,
    describe_factory,
    flatten,
    head_gradients,
    main,
    write_json,
)

LIBRARY = os.path.dirname(torch.__file__) + os.sep
# returned as it came, or no operation of the net
UNMODIFIED = ("contiguous", "to", "float", "type", "requires_grad_", "cpu")
ASIDE = ("grad", "grad_fn", "_base", "is_leaf", "requires_grad")


def describe_tensor(tensor: torch.Tensor) -> Tuple[Tuple[int, ...], str]:
    with torch._C.DisableTorchFunction():
        return tuple(tensor.shape), str(tensor.dtype).split(".")[1]


def encoded(value: Any, tape: Tape) -> Any:
    """An argument as JSON: arrays as the values they hold, what JSON has not as one word and it."""
    if isinstance(value, torch.Tensor):
        return {"tensor": tape.value(value)}
    if isinstance(value, (tuple, list)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encoded(part, tape) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[key, encoded(part, tape)] for key, part in value.items()]}
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return {"slice": [encoded(end, tape) for end in ends]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return {"torch": str(value).split(".")[1]}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    raise RecordError(f"an argument of type {type(value).__name__} cannot be recorded")


class ValueRecorder(TorchFunctionMode):
    """Notes on a tape every call that tensors see, and keeps its outputs and gradients.

    Each operand that a call does not change is passed as a view, whose gradient is the operand's.
    Dropout passes its input on.
    """

    def __init__(self, tape: Tape, archive: Archive, gradients: bool) -> None:
        super().__init__()
        self.tape = tape
        self.gradients: Dict[str, Any] = {}
        self._archive = archive
        self._differentiated = gradients

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        function = resolve_name(func) or ""
        if name == "__get__":
            name = function.split(".")[-2]
        tensors = list(flatten((args, kwargs), torch.Tensor))
        if name in ASIDE or (not tensors and "." not in function):
            return func(*args, **kwargs)
        values = [self.tape.value(tensor) for tensor in tensors]
        template = encoded(list(args), self.tape), encoded(kwargs, self.tape)
        changes = name.endswith("_") or kwargs.get("inplace") or name == "__setitem__"
        index = len(self.tape.operations)
        passed, back = list(tensors), {}  # type: Any, Any
        if self._differentiated:
            for i, tensor in enumerate(tensors):
                held = values[i][0] in ("operation", "input") and tensor.requires_grad
                if held and not changes:
                    passed[i] = tensor.view_as(tensor)
                    back[id(passed[i])] = tensor
                if held:
                    passed[i].register_hook(self._keep(f"{index}.gradient.{i}"))
        if "dropout" in name and kwargs.get("training", True) and tensors:
            result = passed[0].clone()
        else:
            given = iter(passed)
            result = func(*_filled(list(args), given), **_filled(kwargs, given))
        result = back.get(id(result), result)
        outputs = [args[0]] if name == "__setitem__" else list(flatten(result, torch.Tensor))
        same = len(outputs) == 1 and any(outputs[0] is tensor for tensor in tensors)
        if not outputs or (same and name in UNMODIFIED):
            return result
        operands = [(str(i), tensor) for i, tensor in enumerate(tensors)]
        self.tape.add(
            name, {}, operands, outputs, function=function, args=template[0], kwargs=template[1]
        )
        for i, tensor in enumerate(outputs):
            with torch._C.DisableTorchFunction():
                self._archive.add(f"{index}.{i}", tensor.detach().cpu().numpy())
        return result

    def _keep(self, name: str) -> Any:
        def hook(gradient: Any) -> None:
            with torch._C.DisableTorchFunction():
                value = gradient.detach().cpu().numpy()
            known = self.gradients.get(name)
            self.gradients[name] = value.copy() if known is None else known + value

        return hook


def _filled(value: Any, tensors: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if type(value) in (tuple, list):
        return type(value)([_filled(part, tensors) for part in value])
    if isinstance(value, dict):
        return {key: _filled(part, tensors) for key, part in value.items()}
    return value


def module_paths(net: nn.Module, tape: Tape) -> List[Any]:
    """Hooks that note which module runs; to be removed."""
    paths: Dict[int, str] = {}
    for path, module in net.named_modules():
        paths.setdefault(id(module), path)

    def before(module: nn.Module, args: Any) -> None:
        tape.enter(paths.get(id(module), f"{tape.path}.{type(module).__name__}".lstrip(".")))

    def after(module: nn.Module, args: Any, out: Any) -> None:
        tape.leave()

    return [
        hooks.register_module_forward_pre_hook(before),
        hooks.register_module_forward_hook(after),
    ]


def record_pass(net: nn.Module, inputs: Sequence[Any], folder: str, train: bool) -> None:
    """Write one pass of the net: `inference` or `training`, `.json` and `.npz`."""
    name = "training" if train else "inference"
    tape = Tape(WeakIdKeyDictionary(), describe_tensor, (LIBRARY,))
    named = dict(net.named_parameters())
    held = list(named.items()) + list(net.named_buffers())
    for key, tensor in held:
        tape.add_parameter(key, tensor)
    leaves = [x.clone().requires_grad_(train and x.is_floating_point()) for x in inputs]
    given = [x.view_as(x) for x in leaves]  # a leaf could not be changed in place
    for tensor in given:
        tape.add_input(tensor)
    net.train(train)
    net.zero_grad()
    with Archive(os.path.join(folder, name + ".npz")) as archive, ExitStack() as stack:
        recorder = ValueRecorder(tape, archive, train)
        for handle in module_paths(net, tape):
            stack.callback(handle.remove)
        with torch.set_grad_enabled(train), recorder:
            result = net(*given)
        outputs = list(flatten(result, torch.Tensor))
        graph = tape.graph(outputs, train)
        if train:
            ends = [y for y in outputs if y.requires_grad]
            heads = head_gradients([y.detach().cpu().numpy() for y in outputs])
            sent = [torch.from_numpy(g) for g, y in zip(heads, outputs) if y.requires_grad]
            torch.autograd.backward(ends, [g.to(y) for g, y in zip(sent, ends)])
            for i, gradient in enumerate(heads):
                archive.add(f"head.{i}", gradient)
            for key, value in recorder.gradients.items():
                archive.add(key, value)
            for key, tensor in held:
                if key in named and tensor.grad is not None:
                    archive.add("gradient." + key, tensor.grad.cpu().numpy())
                elif key not in named:
                    archive.add("after." + key, tensor.detach().cpu().numpy())
        for key, constant in tape.constants.items():
            archive.add("constant." + key, constant.detach().cpu().numpy())
    write_json(folder, name + ".json", graph)


def record(args: Any, inputs: Sequence[Any], folder: str) -> Dict[str, Any]:
    """Record a net in inference and in training; what a reader has to know of it."""
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    np.random.seed(args.seed)
    device = torch.device(args.device)
    net = describe_factory(args.net or "")
    if not isinstance(net, nn.Module):
        raise RecordError(f"{args.net} gives a {type(net).__name__}, expected a torch module")
    if args.state:
        state = torch.load(args.state, map_location="cpu", weights_only=True)
        net.load_state_dict(state)
    net.to(device)
    kinds = {str(t.dtype).split(".")[1] for t in net.parameters()} - {"float32"}
    if kinds:
        raise RecordError(f"the net computes in {kinds.pop()}; call net.float()")
    tensors = [torch.from_numpy(x).to(device) for x in inputs]
    with Archive(os.path.join(folder, "parameters.npz")) as archive:
        for key, tensor in list(net.named_parameters()) + list(net.named_buffers()):
            archive.add(key, tensor.detach().cpu().numpy())
    try:
        record_pass(net, tensors, folder, False)
    except RecordError:
        raise
    except Exception as error:  # a user's net may raise anything
        raise RecordError(f"the net does not run on these inputs: {error}") from error
    refused = ""
    try:
        record_pass(net, tensors, folder, True)
    except Exception as error:  # nor must it train
        refused = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        for ending in (".npz", ".json"):
            path = os.path.join(folder, "training" + ending)
            if os.path.exists(path):
                os.remove(path)
    return {
        "side": "torch",
        "versions": {"torch": torch.__version__},
        "device": str(device),
        "trainable": [key for key, _ in net.named_parameters()],
        "untrained": refused,
    }


def extend(parser: Any) -> None:
    parser.add_argument("--state", default="", metavar="FILE", help="a state dict of the net")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


if __name__ == "__main__":
    sys.exit(main(record, extend))
