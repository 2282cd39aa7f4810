"""GluonCV's detectors, pose and segmentation nets, exported by MXNet: node by node equal.

`pip install --no-deps gluoncv portalocker` brings the package; the weights are random.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from mxnet_files.checking.apart import check_files
from mxnet_files.checking.third_party_export import limit_regions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # the two R-CNNs take minutes
# name and size
NETS = {
    "ssd_512_mobilenet1.0_voc": (128, 128),
    "yolo3_mobilenet1.0_voc": (64, 64),
    "center_net_resnet18_v1b_voc": (64, 64),
    "center_net_resnet18_v1b_dcnv2_voc": (64, 64),
    "faster_rcnn_resnet50_v1b_voc": (160, 160),
    "mask_rcnn_resnet18_v1b_coco": (320, 320),
    "simple_pose_resnet18_v1b": (64, 64),
    "mobile_pose_mobilenet1.0": (64, 64),
    "hrnet_w18_small_v1_s": (64, 64),
    "deeplab_resnet50_ade": (64, 64),
    "fcn_resnet50_ade": (64, 64),
}


@pytest.fixture(scope="module")
def zoo() -> Any:
    """gluoncv.model_zoo, imported without a look at torch, of which it refuses the versions ≥ 2."""
    if importlib.util.find_spec("gluoncv") is None:
        pytest.skip("gluoncv is not installed: pip install --no-deps gluoncv portalocker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return importlib.import_module("gluoncv").model_zoo


@mx.init.register
class SmallWeights(mx.init.Xavier):
    """Xavier, and moderate vectors where a net leaves their initialisation open."""

    def _init_weight(self, name: Any, array: Any) -> None:
        if array.ndim > 1:
            super()._init_weight(name, array)
        else:
            array[:] = mx.nd.random.uniform(0.5, 1.5, shape=array.shape)


@pytest.mark.parametrize("name", NETS)
def test_nodes_agree(zoo: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (int, float):  # numpy had these when GluonCV was written
        monkeypatch.setattr(np, kind.__name__, kind, raising=False)
    mx.random.seed(0)
    options: dict[str, Any] = {"crop_size": 64} if name.startswith("deeplab") else {}
    if not name.startswith("hrnet"):
        options["pretrained_base"] = False
    net = zoo.get_model(name, pretrained=False, **options)
    limit_regions(net)
    net.initialize(SmallWeights(magnitude=1))
    net.hybridize()
    shape = (1, 3, *NETS[name])
    net(mx.nd.array(np.random.default_rng(0).uniform(-1, 1, shape)))
    net.export(str(tmp_path / "net"))
    files = tmp_path / "net-symbol.json", tmp_path / "net-0000.params"
    report = check_files(*files, {"data": np.random.default_rng(0).standard_normal(shape)})
    assert len(report.local) == report.nodes > 50
    assert [error.problem for error in report.local if not error.ok] == []
    document = json.loads(files[0].read_text())
    assert len(document["nodes"]) > report.nodes
