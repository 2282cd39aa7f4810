"""State that only the leader has read reaches every process."""

import numpy as np
import pytest

from cnn_harness.jobs.peers import Peers, share_state


class _Told(Peers):
    """One of two processes; `said` is what passes between them."""

    rank, count = 0, 2

    def __init__(self, rank: int, said: list[np.ndarray]) -> None:
        self.rank, self._said = rank, said

    def spread(self, array: np.ndarray) -> np.ndarray:
        if self.rank == 0:
            self._said.append(array)
            return array
        value = self._said.pop(0)
        assert (value.shape, value.dtype) == (array.shape, array.dtype)  # a store would hang
        return value


def test_json_reaches_every_process_letter_by_letter() -> None:
    said: list[np.ndarray] = []
    value = {"rows": [1, 2.5, None], "name": "é🙂", "empty": {}}
    assert _Told(0, said).share(value) == value
    assert _Told(1, said).share(None) == value
    assert not said
    assert Peers().share(value) == value


@pytest.mark.parametrize(
    "others",
    [{}, {"a mean": np.ones(2)}, {"a mean": np.ones(3, np.float32), "stale": np.ones(1)}],
    ids=["none", "another shape", "a slot too many"],
)
def test_every_process_ends_with_the_leaders_slots_and_counts(others: dict) -> None:
    slots = {"a mean": np.arange(3, dtype=np.float32), "a var": np.full((2, 2), 7.0)}
    said: list[np.ndarray] = []
    leader = share_state(_Told(0, said), slots, {"a": 5})
    follower = share_state(_Told(1, said), others, {})
    for found, counts in (leader, follower):
        assert counts == {"a": 5}
        assert list(found) == list(slots)
        for name, array in slots.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    assert not said
