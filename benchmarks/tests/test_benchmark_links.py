"""The arithmetic of an exchange, and that a simulated slow link obeys it."""

import json
import os
import shutil
import subprocess

import pytest

from benchmarks import plan, slow_link


def test_the_busiest_cable_is_the_servers_or_with_many_servers_a_workers() -> None:
    split = [4_000_000]  # one array of a million numbers, which goes to every server
    assert slow_link.expected_seconds(split, 8, 1, 32) == 8.0  # 32 MB at 4 MB/s
    assert slow_link.expected_seconds(split, 8, 8, 32) == 1.0
    assert slow_link.expected_seconds(split, 8, 16, 32) == 1.0
    assert slow_link.expected_seconds(split, 8, 1, None) is None


def test_small_arrays_are_on_one_server_each() -> None:
    assert slow_link.busiest([8, 400, 8, 400], 1) == 816
    # Biases and weights take turns, and the prime is odd: two servers share nothing of the weights
    assert slow_link.busiest([8, 400, 8, 400], 2) == 800
    assert slow_link.busiest([8, 400, 8, 400], 3) == 408
    assert slow_link.busiest([8, 400, 8, 400], 2, bound=100) == 16 + 400
    assert slow_link.busiest([400], 4, bound=100) == 100


def test_a_plan_is_linear_in_workers_and_links() -> None:
    sizes = plan.sizes_of("vgg16")
    assert sum(sizes) == 4 * 134_301_514
    one = plan.step(sizes, 4.7, 64, 8, 1)
    assert one.exchange == pytest.approx(8 * 537_206_056 * 8 / 1e9, rel=0.05)
    assert plan.step(sizes, 4.7, 64, 8, 10).exchange == pytest.approx(one.exchange / 10)
    assert plan.step(sizes, 4.7, 128, 16, 1).exchange == pytest.approx(one.exchange, rel=0.05)
    assert 0 < one.efficiency < 0.2


def test_the_command_prints_a_line_for_each_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--model", "lenet", "--compute", "0.011", "--bound", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(plan.WORKERS) * len(plan.PER_SERVER)
    assert lines[-3].startswith("| 256 | 32 | 11.4 ms, 49% |")
    assert plan.main(["--model", "vgg", "--compute", "1"]) == 2
    assert plan.main(["--compute", "0"]) == 2


def _namespaces() -> str:
    """Why no network namespaces can be made here; empty where they can."""
    if os.geteuid():
        return "not root"
    if not all(map(shutil.which, ("ip", "tc"))):
        return "iproute2 is not installed"
    made = subprocess.run(["ip", "netns", "add", "gcn-probe"], capture_output=True, text=True)
    if made.returncode:
        return made.stderr.strip()
    subprocess.run(["ip", "netns", "del", "gcn-probe"], check=True)
    return ""


@pytest.mark.slow
def test_a_slow_link_takes_what_the_arithmetic_says(capsys: pytest.CaptureFixture[str]) -> None:
    if why := _namespaces():
        pytest.skip(f"no network namespaces: {why}")
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert slow_link.main(["--mbit", "20", "--rounds", "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["megabytes"] == 0.178
    assert 0.9 < result["seconds"] / result["of_the_link"] < 2.2
    assert subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout == before
