"""The torch state dict that an alignment found, written, and proven by loading it again.

Framework specific (torch): what is written is a torch state dict.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mxnet_files.reading.tensor_files import SUFFIXES, TensorFileError, read_tensors, write_tensors
from parity_tests.backends.base import referee
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.parts import part_of
from parity_tests.backends.runs import NET, Arrays, rounded
from parity_tests.backends.tracing import flatten
from parity_tests.levels.referee import Subject, attempt
from parity_tests.numerics.compare import bits_equal
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level


def check_saved_path(path: str | Path) -> Path:
    """Raises ParityError for a name that no state dict has."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ParityError(f"save_mapped is {path}, expected a name in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ParityError(f"save_mapped is {path}, and {path.parent} is no folder")
    return path


def save_mapped(
    path: Path, torch_net: Any, subjects: Sequence[Subject], inputs: Arrays
) -> tuple[list[Row], str]:
    """Write the state of a net that holds Gluon's values, and hold the file against both nets.

    A fresh net, all of whose floats were made NaN, loads it; every tensor must have Gluon's bits,
    and the outputs those of the net that was compared. Returns the rows of that, and in words what
    no operation reads, which is as the torch net had it.
    """
    state = {name: t.detach().cpu().numpy() for name, t in torch_net.state_dict().items()}
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write_tensors(beside, state)
        written = read_tensors(beside)
        rows, sources = _proven(written, torch_net, subjects, inputs)
        if any(row.status.failed for row in rows):
            return rows, f"{path} is not written: what was saved is not what was compared"
        beside.replace(path)
    except (TensorFileError, OSError) as error:
        raise ParityError(f"save_mapped: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    reached = {t.data_ptr() for n, t in torch_net.state_dict().items() if n in sources}
    kept = [
        name
        for name, t in torch_net.state_dict().items()
        if t.data_ptr() not in reached and not name.endswith("num_batches_tracked")
    ]
    words = f"{path}: {len(written)} tensors, {len(sources)} of them Gluon's to the last bit"
    if kept:
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        words += f"; as the torch net had them, and read by no operation: {', '.join(kept[:5])}"
        words += more
    return rows, words


def _proven(
    written: Mapping[str, np.ndarray], torch_net: Any, subjects: Sequence[Subject], inputs: Arrays
) -> tuple[list[Row], dict[str, None]]:
    """The rows of what a file holds, and the names of the tensors that are Gluon's."""
    fresh = referee().twin(torch_net)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    fresh.load_state_dict({name: torch.from_numpy(value) for name, value in written.items()})
    rows = []
    sources: dict[str, None] = {}
    proven: set[str] = set()
    for subject in subjects:
        for pair in subject.pairing.pairs:
            for role, tensor in pair.torch.tensors.items():
                if role in pair.gluon.tensors and tensor.name not in proven:
                    proven.add(tensor.name)
                    name, taken = part_of(tensor.name, written) or (tensor.name, None)
                    sources[name] = None
                    actual = written[name] if taken is None else taken(written[name])
                    expected = pair.gluon.tensors[role].read().reshape(actual.shape)
                    verdict = bits_equal(actual, expected.astype(actual.dtype))
                    rows.append(_row(verdict, pair.path, role))
    before, after = (_outputs(net, inputs) for net in (torch_net, fresh))
    for a, b in zip(before, after, strict=True):
        rows.append(_row(bits_equal(b, a), NET, "output of a fresh net"))
    return rows, sources


def _row(verdict: Any, path: str, quantity: str) -> Row:
    return Row.judged(verdict, level=Level.WEIGHTS, path=path, quantity=quantity, check=Check.SAVED)


def _outputs(net: Any, inputs: Arrays) -> list[np.ndarray]:
    kinds = [p.dtype for p in net.parameters() if p.is_floating_point()]

    def run() -> Any:
        training = {module: module.training for module in net.modules()}
        net.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            given = [torch.from_numpy(rounded(x, "float32").copy()) for x in inputs]
            made = net(*(x.to(kinds[0]) if kinds and x.is_floating_point() else x for x in given))
        for module, mode in training.items():
            module.training = mode
        return made

    made = attempt("torch", run)
    return [y.numpy() for y in flatten(made, torch.Tensor)]
