"""Fixtures that run each test on SQLite and on MariaDB; dicts have no schema to upgrade."""

from pathlib import Path

import pytest

from tests.support.stores import NewUrl, new_urls, open_store

__all__ = ["any_url", "open_store"]


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    return new_urls(request, tmp_path)
