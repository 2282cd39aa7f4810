"""Both packages read the weights to begin with alike, from every kind of file."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

import gluon_cnn.training.pretrained
import torch_ref.training.pretrained
from gluon_cnn import export, train
from gluon_cnn.models import get_model
from torch_ref.transfer import transfer_file

READERS = (
    gluon_cnn.training.pretrained.read_weights, torch_ref.training.pretrained.read_weights,
)  # fmt: skip


def _params(path: Path) -> dict[str, np.ndarray]:
    return {key: value.asnumpy() for key, value in mx.nd.load(str(path)).items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as every kind of source."""
    folder = tmp_path_factory.mktemp("files")
    run = folder / "run"
    assert train.main(["--batch-size", "4000", "--epochs", "1", "--out", str(run)]) == 0
    sources = {"run": run, ".params": run / "best.params", "export": folder / "export"}
    for suffix in (".safetensors", ".pt"):
        sources[suffix] = folder / f"w{suffix}"
        transfer_file(run / "best.params", sources[suffix])
    assert export.main([str(run), "--out", str(folder / "export"), "--engine", "mxnet"]) == 0
    return sources


@pytest.mark.parametrize("kind", ["run", "export", ".params", ".safetensors", ".pt"])
def test_every_kind_of_source_is_the_same_weights(kind: str, files: dict[str, Path]) -> None:
    expected = _params(files[".params"])
    for read_weights in READERS:
        arrays = read_weights(str(files[kind])).arrays
        assert set(arrays) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_batch_norm_is_read_by_gluons_names(tmp_path: Path) -> None:
    net = get_model("mnist_bn_cnn")
    net.initialize()
    net.save_parameters(str(tmp_path / "w.params"))
    transfer_file(tmp_path / "w.params", tmp_path / "w.safetensors")
    for read_weights in READERS:
        arrays = read_weights(str(tmp_path / "w.safetensors")).arrays
        assert set(arrays) == set(_params(tmp_path / "w.params"))
