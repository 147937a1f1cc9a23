"""The history of the two kinds of schema, `api` and `compute`: two Alembic branches, each from nothing to its head.

Imports nothing of ours, so that a revision means the same for ever; cells.store.schema finds it by name. A revision's
file name says `pre` when it must run before the daemons of the new version start (it only adds), `post` when it may
run only after the last daemon of the old version has stopped (it removes).
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_LOCK_SECONDS = 60


def _config() -> Config:
    config = Config()
    # A folder name may hold a % sign, which Alembic's configuration would take for a reference.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url, poolclass=sa.NullPool)


def head(role: str) -> str:
    """The newest revision of a role's schema."""
    revision = ScriptDirectory.from_config(_config()).get_revision(f"{role}@head")
    assert revision is not None
    return revision.revision


def role_of(revision: str) -> str:
    """Whose schema a revision is of; empty when this version does not know the revision."""
    for script in ScriptDirectory.from_config(_config()).walk_revisions():
        if script.revision == revision:
            return next(iter(script.branch_labels), "")
    return ""


def current(url: str) -> str:
    """The revision a database is at; empty when it has none."""
    engine = _engine(url)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def upgrade(url: str, role: str) -> None:
    """Bring a database to the head of its role's schema. May be called again, also after it was interrupted, also by
    several processes at once."""
    engine = _engine(url)
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            query = sa.text("SELECT GET_LOCK(CONCAT('celltree.', DATABASE()), :seconds)")
            if connection.scalar(query, {"seconds": _LOCK_SECONDS}) != 1:
                raise TimeoutError("another upgrade of this database is under way: wait for its end, then try again")
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, f"{role}@head")
        connection.commit()
