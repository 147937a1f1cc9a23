"""The REST API for any WSGI server, beside the cell's daemons, which it shares only the database with:

    CELLTREE_CONFIG=east.yaml gunicorn --workers 4 --threads 8 'api_cell.http.wsgi:application()'

It needs no broker: a request only saves what is wished, and the daemons look for that by themselves several times a
second. Each worker makes its own application, so do not preload it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from api_cell.front import Front
from api_cell.http.app import Application
from api_cell.role import ApiRole, ApiSettings
from cells import tls
from cells.config import fill, identity, load
from cells.errors import BadInput
from cells.house import Parts, system_clock
from cells.ids import Ids
from cells.store import open_store

CONFIG = "CELLTREE_CONFIG"


def application(environment: Mapping[str, str] = os.environ) -> Application:
    """The WSGI callable; BadInput when the configuration is not that of an API cell."""
    if not environment.get(CONFIG):
        raise BadInput(f"{CONFIG} is not set: set it to the path of the API cell's configuration file")
    config = load(Path(environment[CONFIG]))
    if config.role != ApiRole.name:
        raise BadInput(f"{environment[CONFIG]} is of a {config.role} cell; only an API cell serves REST")
    tls.check(config, system_clock())
    parts = Parts(
        identity=identity(config),
        store=open_store(config.database, ApiRole.rows),
        clock=system_clock,
        new_id=Ids(system_clock, os.urandom),
        random_bytes=os.urandom,
        settings=config.settings,
    )
    settings = fill(ApiSettings, config.settings, "settings")
    return Front(settings.front, parts).application(lambda: None)
