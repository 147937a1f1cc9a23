"""The folder a private server lives in: its small JSON of facts that are chosen once, and its end."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cells.errors import Permanent
from cells.lab.processes import write_whole

Facts = Mapping[str, str | int]


def remembered(folder: Path, choose: Callable[[], Facts]) -> Facts:
    """What was chosen for the server in this folder; chosen and written down now when it is new."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "server.json"
    if not file.exists():
        write_whole(file, json.dumps(dict(choose()), indent=1))
    try:
        facts = json.loads(file.read_text())
    except ValueError as error:
        raise Permanent(f"{file} is not readable JSON ({error}); remove the folder {folder} and start again") from error
    if not isinstance(facts, dict):
        raise Permanent(f"{file} does not hold a JSON object; remove the folder {folder} and start again")
    return facts


def clear(folder: Path) -> None:
    """Remove the folder of a server that was stopped."""
    shutil.rmtree(folder, ignore_errors=True)
