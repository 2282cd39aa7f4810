"""The files of a run and of an export, as fuzzing targets."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx

from cnn_data.tests.fuzzing import Target, one_line_errors
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.progress import Partial, Progress, read_progress, state_of
from cnn_harness.sealed import read_sealed, seal
from gluon_cnn.exporting.exported import read_manifest
from gluon_cnn.exporting.params_layout import LayoutError, read_layout
from gluon_cnn.models import ModelError, get_model
from gluon_cnn.training import checkpoint
from gluon_cnn.training.saved import open_run

_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")
_FOLDER = Path(_SCRATCH.name)


@functools.cache
def _net() -> Any:
    net = get_model("lenet_linear", 3, 1, 14)
    net.initialize()
    return net


def check_params(content: bytes) -> None:
    """What the layout check lets through, MXNet reads without asking for more than is there."""
    path = _FOLDER / "x.params"
    path.write_bytes(content)
    with one_line_errors(LayoutError):
        shapes = read_layout(path)
        loaded = mx.nd.load(str(path))
        if shapes:
            assert {name: array.shape for name, array in loaded.items()} == shapes
    with one_line_errors(CommandError):
        checkpoint.load_parameters(_net(), path, [mx.cpu()])


def params_seeds() -> Sequence[bytes]:
    path = _FOLDER / "seed.params"
    seeds = []
    _net().save_parameters(str(path))
    seeds.append(path.read_bytes())
    for dtype in ("float64", "float16", "uint8", "int64"):
        mx.nd.save(str(path), {"arg:a": mx.nd.ones((2, 3), dtype=dtype), "b": mx.nd.ones((1,))})
        seeds.append(path.read_bytes())
    for nameless in ([mx.nd.ones((2,))], []):
        mx.nd.save(str(path), nameless)
        seeds.append(path.read_bytes())
    return seeds


def _config_text() -> bytes:
    run = {
        "format": 1, "framework": "gluon", "config": TrainConfig().to_dict(), "data_dir": None,
        "input_shape": [1, 28, 28], "class_names": ["a", "b"], "mean": [0.5], "std": [0.25],
        "images": {"train": 1, "test": 1, "labels_sha256": 64 * "0"}, "versions": {},
    }  # fmt: skip
    return json.dumps(run).encode()


def check_config(content: bytes) -> None:
    folder = _FOLDER / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    (folder / "best.params").touch()
    with one_line_errors(CommandError, ModelError):
        open_run(folder, [mx.cpu()])


def _state() -> Any:
    row = {"epoch": 1, "train_loss": 0.5, "train_acc": 0.5, "test_loss": 0.5, "test_acc": 0.5,
           "seconds": 1.0, "images_per_second": 9.0}  # fmt: skip
    return state_of(TrainConfig(), Progress([row], Partial(2, 3, 192, 1.5, 100.0, 0.5)), 63)


def check_state(content: bytes) -> None:
    """A checkpoint whose checksums are right, whatever it says: a forged one."""
    try:
        state = json.loads(content)
        seal(_FOLDER / "last", _FOLDER / "previous", {}, state)
    except (ValueError, RecursionError):
        return
    with one_line_errors(CommandError):
        progress = read_progress(read_sealed(_FOLDER / "last"), TrainConfig(), 63, _FOLDER / "last")
        progress.where()


def check_export_manifest(content: bytes) -> None:
    folder = _FOLDER / "export"
    folder.mkdir(exist_ok=True)
    (folder / "x.json").write_bytes(content)
    with one_line_errors(CommandError):
        read_manifest(folder / "x.json")


def _export_manifest() -> bytes:
    values = {"format": "gluon_cnn export 1", "name": "x", "files": {"y": "0" * 64}}
    own = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps({**values, "sha256": own}).encode()


TARGETS = {
    "params": Target(check_params, params_seeds),
    "config": Target(check_config, lambda: [_config_text()]),
    "checkpoint-state": Target(check_state, lambda: [json.dumps(_state()).encode()]),
    "export-manifest": Target(check_export_manifest, lambda: [_export_manifest()]),
}
