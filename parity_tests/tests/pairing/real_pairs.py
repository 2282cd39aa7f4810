"""A pair of nets by others, in a process of its own.

`python -m parity_tests.tests.pairing.real_pairs ZOO GLUON TORCH SIZE [BATCH [quick] [isolate]]`
prints, as JSON, what the alignment says of a pair on two images, or with a batch what
`check_parity` says, with these options. MXNet can end its process by a signal; the table of all
pairs (`real_table`) must not go with it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import mxnet as mx
import numpy as np
import torch

from mxnet_files.checking.third_party_export import give_numpy_its_old_names
from parity_tests import check_parity
from parity_tests.backends.leaves import ParityError
from parity_tests.pairing.parameters import align_nets, transfer_parameters
from parity_tests.tests.pairing.nets import initialised


def _register_nothing(*args: object, **kwargs: object) -> Callable[[Any], Any]:
    return lambda function: function


def build(zoo: str, gluon_name: str, torch_name: str) -> tuple[Any, Any]:
    # torchvision's wheel registers shapes of C++ operators that a CPU build of torch lacks
    torch.library.register_fake = _register_nothing
    give_numpy_its_old_names()
    if zoo == "model_zoo":
        from mxnet.gluon.model_zoo import vision
        from torchvision import models

        # Gluon's has no head beside its own
        alone = {"init_weights": False, "aux_logits": False}
        options = alone if torch_name == "inception_v3" else {}
        return getattr(vision, gluon_name)(), getattr(models, torch_name)(**options)
    from gluoncv2.model_provider import get_model as gluon_model
    from pytorchcv.model_provider import get_model as torch_model

    return gluon_model(gluon_name), torch_model(torch_name)


_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)


def _flat(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _flat(output)
    elif outputs is not None:
        yield outputs


def measure(zoo: str, gluon_name: str, torch_name: str, size: int) -> dict[str, Any]:
    """Align two nets on two images of size × size, transfer the weights, compare the outputs."""
    gluon_net, torch_net = build(zoo, gluon_name, torch_name)
    x = images(2, size)
    initialised(gluon_net, x)
    start = time.perf_counter()
    alignment = align_nets(gluon_net, torch_net, [x])
    result: dict[str, Any] = {
        "seconds": round(time.perf_counter() - start, 1),
        "aligned": len(alignment.pairs),
        "alone": [str(op) for side in alignment.alone for op in side],
        "differences": sorted({d.what for p in alignment.differing for d in p.differences}),
        "total": alignment.total,
        "equal": alignment.equal,
    }
    try:
        transfer_parameters(gluon_net, torch_net, [x])
    except ParityError as error:
        return result | {"error": None, "reason": str(error)}
    with torch.no_grad():
        theirs = torch_net.eval()(torch.from_numpy(x))
    errors = [
        np.abs(ours.asnumpy() - other.numpy()).max() / np.abs(other.numpy()).max()
        for ours, other in zip(_flat(gluon_net(mx.nd.array(x))), _flat(theirs), strict=True)
    ]
    return result | {"error": float(max(errors))}


def check(
    zoo: str, gluon_name: str, torch_name: str, size: int, batch: int, **options: Any
) -> dict[str, Any]:
    """`check_parity` after transfer, with CPU time, wall time and peak memory."""
    gluon_net, torch_net = build(zoo, gluon_name, torch_name)
    x = images(batch, size)
    initialised(gluon_net, x)
    start, cpu = time.perf_counter(), time.process_time()
    report = check_parity(gluon_net, torch_net, x, transfer=True, **options)
    counts = report.coverage.counts()
    return {
        "cpu": round(time.process_time() - cpu, 1),
        "sec": round(time.perf_counter() - start, 1),
        "mb": max(resource.getrusage(who).ru_maxrss for who in _PROCESSES) // 1024,
        "ok": report.ok,
        "first": str(report.first_divergence or ""),
        "ops": counts.get("operations", counts.get("leaves", (0, 0)))[0],
        "rows": len(report.rows),
        "notes": len(report.notes),
    }


if __name__ == "__main__":
    _, zoo, gluon_name, torch_name, size, *rest = sys.argv
    if rest:
        found = check(
            zoo, gluon_name, torch_name, int(size), int(rest[0]), **dict.fromkeys(rest[1:], True)
        )
    else:
        found = measure(zoo, gluon_name, torch_name, int(size))
    print(json.dumps(found))
