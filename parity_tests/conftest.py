"""`pytest parity_tests --full` adds the full-size cases."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also AlexNet and VGG16 at 224×224")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="full size: run with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)
