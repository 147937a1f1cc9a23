"""Each *.txt here is a test: played, and compared with itself."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what the stories print into their files")
