"""A front door each test has for itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_house import ApiHouse, an_api_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ApiHouse]:
    with an_api_house(tmp_path) as house:
        yield house
