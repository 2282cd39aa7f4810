"""`pytest parity_tests --full` adds the full-size cases."""

import pytest

from parity_tests.heap import keep_freed_memory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also AlexNet and VGG16 at 224×224")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        keep_freed_memory()
        return
    skip = pytest.mark.skip(reason="full size: run with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)
