"""Fixtures that run each test on SQLite and on MariaDB."""

from tests.support.stores import any_url, open_store  # noqa: F401  (pytest finds fixtures by their being here)
