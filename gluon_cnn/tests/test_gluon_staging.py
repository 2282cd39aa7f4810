"""Staged batches hold what was given, whatever was staged before."""

import mxnet as mx
import numpy as np
import pytest

from gluon_cnn.training.staging import Staging, to_devices


@pytest.mark.parametrize("devices", [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=len)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_batch_is_the_one_that_was_given(devices: list[mx.Context], dtype: str) -> None:
    rng = np.random.default_rng(0)
    staging = Staging(devices, dtype)
    for count in (6, 6, 4, 6):  # the last of an epoch is short
        images = rng.standard_normal((count, 1, 3, 3), dtype=np.float32)
        labels = rng.integers(0, 10, count)
        staged = [np.concatenate([p.asnumpy() for p in staging(a)]) for a in (images, labels)]
        np.testing.assert_array_equal(staged[0], images)
        np.testing.assert_array_equal(staged[1], labels)
        assert {a.dtype for a in staged} == {np.dtype(dtype)}


def test_one_device_gets_the_same_array_again() -> None:
    staging = Staging([mx.cpu()])
    first, short = staging(np.zeros((4, 2)))[0], staging(np.ones((3, 2)))[0]
    assert staging(np.ones((4, 2)))[0] is first
    assert staging(np.zeros((3, 2)))[0] is short
    np.testing.assert_array_equal(first.asnumpy(), np.ones((4, 2)))


def test_what_is_not_contiguous_is_staged_as_it_reads() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(Staging([mx.cpu()])(array)[0].asnumpy(), array)


def test_parts_of_a_split_batch_keep_their_order() -> None:
    parts = to_devices(np.arange(5.0), [mx.cpu(0), mx.cpu(1), mx.cpu(2)])
    assert [len(p) for p in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([p.asnumpy() for p in parts]), np.arange(5.0))
