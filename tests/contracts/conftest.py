"""Fixtures that run a contract suite on every adapter."""

from tests.support.doors import session  # noqa: F401  (pytest finds fixtures by their being here)
from tests.support.stores import (  # noqa: F401  (pytest finds fixtures by their being here)
    any_store,
    any_url,
    emptied_store,
    open_store,
    shared_schema,
)
