"""Fixtures that run a contract suite on every adapter."""

from tests.support.stores import any_store, any_url, open_store  # noqa: F401  (pytest finds fixtures by their being here)
