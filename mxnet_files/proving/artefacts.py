"""Running what a folder holds: model.py by itself, the torch.export program, ONNX."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mxnet_files.errors import SymbolError
from mxnet_files.running import onnx_session, refusals, run

LONGEST_RUN = 600  # seconds that model.py may take
PYTHON = [sys.executable]  # which runs it

# Refusing the packages shows that the file needs neither; numpy carries the arrays.
_ALONE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("mxnet", "mxnet_files", "mxnet_compat"):
            raise ImportError(f"model.py imports {name}")
sys.meta_path.insert(0, Refuse())
path, given, result = sys.argv[1:]
sys.dont_write_bytecode = True
import importlib.util
import numpy as np, torch
spec = importlib.util.spec_from_file_location("model", path)
model = importlib.util.module_from_spec(spec)
spec.loader.exec_module(model)
net = model.load()
with np.load(given, allow_pickle=False) as file, torch.no_grad():
    found = net(*(torch.from_numpy(file[str(place)]) for place in range(len(file.files))))
found = found if isinstance(found, tuple) else (found,)
np.savez(result, **{str(place): y.detach().numpy() for place, y in enumerate(found)})
"""


def run_model_file(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a `model.py` with its weights, in a process that has neither MXNet nor us."""
    with tempfile.TemporaryDirectory() as scratch:
        given, result = Path(scratch, "given.npz"), Path(scratch, "result.npz")
        arrays: dict[str, Any] = {str(i): x for i, x in enumerate(inputs.values())}
        np.savez(given, **arrays)
        try:
            done = subprocess.run(
                [*PYTHON, "-c", _ALONE, str(path.resolve()), str(given), str(result)],
                capture_output=True, text=True, timeout=LONGEST_RUN, cwd=scratch, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SymbolError(f"{path.name} runs for more than {LONGEST_RUN} s") from None
        if done.returncode or not result.exists():
            said = done.stderr.strip().splitlines() or ["no reason"]
            raise SymbolError(f"{path.name} does not run: {said[-1]}")
        with np.load(result, allow_pickle=False) as file:
            return [file[str(place)] for place in range(len(file.files))]


def run_program(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a torch.export program."""
    with refusals(f"{path.name} cannot be loaded"):
        module = torch.export.load(path).module()
    return [y.numpy() for y in run(module, [torch.from_numpy(x) for x in inputs.values()])]


def run_onnx(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an ONNX file. Raises ModuleNotFoundError without ONNX Runtime."""
    with refusals(f"{path.name} cannot be run by ONNX Runtime"):
        session = onnx_session(str(path))
        named = zip((value.name for value in session.get_inputs()), inputs.values(), strict=True)
        return [np.asarray(y) for y in session.run(None, dict(named))]


RUNNERS = {".py": run_model_file, ".pt2": run_program, ".onnx": run_onnx}
