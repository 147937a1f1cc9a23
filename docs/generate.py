"""Writes docs/reference/ from the code, so that they cannot say anything else: `python -m docs.generate`.

Commands come from the parsers, settings from the dataclasses, records and routes from their registries, states from
their tables. The unit of a setting and when to change it, which no dataclass says, stand in docs/settings.yaml.
tests/architecture/test_docs.py fails when a page is not what this gives.
"""

import argparse
import dataclasses
import enum
import importlib
import inspect
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from api_cell import errors as api_errors
from api_cell.allowed import ALLOWED
from api_cell.http.actions import NOT_SERVED
from api_cell.http.call import Route
from api_cell.http.metrics import Metrics
from api_cell.http.openapi import document
from api_cell.http.routes import ROUTES
from api_cell.http.versions import HIGHEST
from api_cell.role import ApiSettings
from api_cell.rows import Phase as ServerPhase
from api_cell.status import STATUS, STATUS_OF_TASK, TASK_OF_WISH
from cells import errors as cell_errors
from cells.cli.main import Celltree
from cells.config import CellConfig
from cells.messages import REGISTRY, Direction, RefusalCode
from cells.model import CellState
from cells.topology_file import CellPlan, PoolPlan
from compute_cell.role import ComputeSettings
from compute_cell.rows import HostState
from compute_cell.rows import Phase as BuildPhase

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
HEAD = "<!-- Made by `python -m docs.generate`; change what it reads instead. -->\n\n"

Cells = Iterable[str]


COMMANDS_TEXT = """\
Exit status: 0 done, 1 refused or failed (one line says why and the remedy), 2 a bad command line. `celltree run`
ends with 3 when jobs were still under way at the end of `--drain-seconds`.

Before the command: `-v` (warnings; twice: information; three times: everything), `-q`, `--debug` (tracebacks),
`--log-file FILE`. Commands marked *list* or *show* also take `-f table|json|yaml|csv|value` (a show:
`table|json|yaml|shell|value`), `-c COLUMN`, `--sort-column COLUMN`, `--max-width N`, as openstackclient does.

`--tree`, `--cell` and `--config` name a tree's folder or a cell; without `--tree` the variable `CELLTREE_TREE`
counts, else the only folder under `~/.local/share/celltree` (`$XDG_DATA_HOME/celltree`).
"""

SETTINGS_TEXT = """\
A cell's configuration is a YAML file, read once when a daemon starts; change it and restart the daemons of the
cell, one after the other. `celltree cell register` writes it. An unknown name, a missing one or a wrong type is
refused with the name of the setting. The paths of `key`, `certificate` and `root`, those under `amqp: tls:` and those
in the database URL (`ssl_ca`, `ssl_cert`, `ssl_key`) are relative to the file, all others to the daemon's folder.
"""


# --- Markdown ---


def table(header: Cells, rows: Iterable[Cells]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(_cell(word) for word in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """One line, and no bar that would end the cell."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def said(thing: Any) -> str:
    """A docstring as one paragraph."""
    return re.sub(r"\s+", " ", inspect.getdoc(thing) or "")


# --- commands ---


def commands() -> dict[str, type]:
    """Every command by its words, as pyproject.toml names them: what is installed may be of another day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for name, value in project["entry-points"]["celltree.commands"].items():
        module, _, attribute = value.partition(":")
        found[name.replace("_", " ")] = getattr(importlib.import_module(module), attribute)
    return dict(sorted(found.items()))


def commands_page() -> str:
    app = Celltree()
    parts = [
        HEAD,
        "# Commands\n\n",
        COMMANDS_TEXT,
    ]
    for name, kind in commands().items():
        parser = _parser(app, name, kind)
        shape = {"Lister": " *(list)*", "ShowOne": " *(show)*"}.get(_shape(kind), "")
        words = " ".join(_positional(each) for each in _positionals(parser))
        parts += [
            f"\n## celltree {name}\n\n",
            code(f"celltree {name} {words}".strip()),
            shape,
            "\n\n",
            said(kind),
            "\n",
        ]
        rows = [
            (code(_name(each)), _default(each), _help(each))
            for each in (*_positionals(parser), *_options(parser))
            if each.option_strings or each.help or each.choices
        ]
        if rows:
            parts += ["\n", table(("argument", "default", "meaning"), rows)]
    return "".join(parts)


def _parser(app: Celltree, name: str, kind: type) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kind(app, None, cmd_name=name).get_parser(f"celltree {name}")
    return parser


def _shape(kind: type) -> str:
    names = {each.__name__ for each in kind.__mro__}
    return next((each for each in ("Lister", "ShowOne") if each in names), "")


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return list(parser._positionals._group_actions)


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Our own ones; cliff's are in groups of theirs."""
    return [each for each in parser._optionals._group_actions if "--help" not in each.option_strings]


def _positional(action: argparse.Action) -> str:
    word = str(action.metavar or action.dest)
    return {"?": f"[{word}]", "+": f"{word}..."}.get(str(action.nargs), word)


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return _positional(action)
    word = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {word}")


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if action.default in (None, "", [], False) or action.default is argparse.SUPPRESS:
        return ""
    return code(str(action.default))


def _help(action: argparse.Action) -> str:
    text = "" if action.help in (None, argparse.SUPPRESS) else str(action.help)
    if action.choices and action.metavar:
        text = f"{text} ({', '.join(map(str, action.choices))})".strip()
    return text


# --- settings ---


def settings_page() -> str:
    parts = [
        HEAD,
        "# Settings\n\n",
        SETTINGS_TEXT,
    ]
    sections: tuple[tuple[str, str, type, str], ...] = (
        ("Every cell", "The fields of the file.", CellConfig, ""),
        ("An API cell", "Under `settings:` when `role` is `api`.", ApiSettings, "settings."),
        ("A compute cell", "Under `settings:` when `role` is `compute`.", ComputeSettings, "settings."),
    )
    for title, text, shape, prefix in sections:
        parts += [f"\n## {title}\n\n{text}\n\n", _settings(shape, prefix)]
    parts += [
        "\n## A topology file\n\n",
        "What `celltree lab up FILE` and `celltree lab compose FILE` read: `cells:`, a list of cells, "
        "each after its parents.\n\n",
        _settings(CellPlan, ""),
        "\nEach of `pools`:\n\n",
        _settings(PoolPlan, ""),
    ]
    return "".join(parts)


def _settings(shape: type, prefix: str) -> str:
    known = notes()
    rows = []
    for name, owner, each in _fields(shape, prefix):
        unit, when = known.get((owner.__name__, each.name), ("", ""))
        rows.append((code(name), _type(typing.get_type_hints(owner)[each.name]), _value(each), unit, when))
    return table(("setting", "type", "default", "unit", "what, and when to change"), rows)


def _fields(shape: type, prefix: str) -> Iterator[tuple[str, type, "dataclasses.Field[Any]"]]:
    hints = typing.get_type_hints(shape)
    for each in dataclasses.fields(shape):
        inner = next((kind for kind in _options_of(hints[each.name]) if dataclasses.is_dataclass(kind)), None)
        items = next((kind for kind in typing.get_args(hints[each.name]) if dataclasses.is_dataclass(kind)), None)
        if isinstance(inner, type):
            yield from _fields(inner, f"{prefix}{each.name}.")
            continue
        yield f"{prefix}{each.name}", shape, each
        if isinstance(items, type):
            yield from _fields(items, f"{prefix}{each.name}[].")


def notes() -> dict[tuple[str, str], tuple[str, str]]:
    """Unit and text of each setting by (class, field)."""
    raw = yaml.safe_load((ROOT / "docs" / "settings.yaml").read_text(encoding="utf-8"))
    return {(owner, name): (unit, text) for owner, fields in raw.items() for name, (unit, text) in fields.items()}


def setting_names() -> set[tuple[str, str]]:
    """Every setting as (class, field)."""
    shapes = (CellConfig, ApiSettings, ComputeSettings, CellPlan, PoolPlan)
    return {(owner.__name__, each.name) for shape in shapes for _, owner, each in _fields(shape, "")}


def _options_of(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _type(hint: Any) -> str:
    options = [each for each in _options_of(hint) if each is not type(None)]
    hint = options[0]
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return ", ".join(code(str(each)) for each in origin)
    words = {int: "whole number", float: "number", str: "text", bool: "true, false", tuple: "list"}
    return words.get(origin, "mapping" if isinstance(origin, type) and issubclass(origin, Mapping) else str(origin))


def _value(each: "dataclasses.Field[Any]") -> str:
    if each.default is not dataclasses.MISSING:
        value = each.default.value if isinstance(each.default, enum.Enum) else each.default
    elif each.default_factory is not dataclasses.MISSING:
        value = each.default_factory()
    else:
        return "required"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, int) and value >= 10_000:
        return code(f"{value:,}")
    return {"": "empty", "()": "empty", "{}": "empty"}.get(str(value), code(str(value)))


# --- records ---


def records_page() -> str:
    words = {
        Direction.DOWN: "Commands and questions of an API cell to a cell below it.",
        Direction.UP: "Replies and reports of a cell to an API cell above it.",
        Direction.BESIDE: "Between neighbours.",
        Direction.ANY: "Of the machinery, from and to any cell.",
        Direction.LOCAL: "What a cell tells itself; never accepted from outside.",
    }
    parts = [
        HEAD,
        "# Records\n\n",
        "Every kind of record there is (`cells/messages.py`). *Acknowledged*: kept in the sender's outbox until "
        "the destination has committed its effect; the others say how things are and are sent again while they matter."
        "\n",
    ]
    for direction, text in words.items():
        kinds = [each for each in REGISTRY.values() if each.direction is direction]
        rows = [
            (
                code(each.name),
                str(each.version),
                "yes" if each.acknowledged else "no",
                "yes" if each.of_server else "no",
                ", ".join(code(part.name) for part in dataclasses.fields(each.body)),
                said(each.body),
            )
            for each in kinds
        ]
        header = ("kind", "version", "acknowledged", "of one server", "fields", "meaning")
        parts += [f"\n## {str(direction).capitalize()}\n\n{text}\n\n", table(header, rows)]
    codes = [(code(each),) for each in RefusalCode]
    parts += ["\n## Codes of a refusal\n\n", said(RefusalCode), "\n\n", table(("code",), codes)]
    return "".join(parts)


# --- REST ---


def rest_page() -> str:
    served = [each for each in ROUTES if each.action not in NOT_SERVED]
    parts = [
        HEAD,
        "# REST\n\n",
        f"OpenStack Compute v2.1, microversions 2.1 to 2.{HIGHEST}, each answer in the shape its version has; "
        "Glance v2 for a folder of images under `/image`. A "
        "route that is not here is answered with 404, a method that is not here with 405.\n\n",
        "Rules: *open*, anybody; *tenant*, any user, for what is of its project; *admin*, an administrator; "
        "*image*, a tenant, or a leaf with a token for that image.\n\n",
        "The same as data, with what each route takes and answers: [openapi.json](openapi.json), and `GET "
        "/v2.1/openapi.json` of a running API cell, at the microversion asked for.\n\n",
        table(
            ("method", "path", "action", "from", "to", "rule"),
            (
                (each.method, code(each.path), code(each.action), _from(each), _until(each), str(each.rule))
                for each in served
            ),
        ),
        "\nActions that OpenStack has and this API answers with 501: ",
        ", ".join(code(each) for each in NOT_SERVED),
        ".\n\n## Refusals\n\n",
        "Bodies are OpenStack's: "
        '`{"KEY": {"code": N, "message": "..."}}`. The message names the field and the remedy.\n\n',
        table(
            ("status", "key", "class", "when"),
            (
                (str(each.code), code(each.key), code(each.__name__), said(each))
                for each in _classes(api_errors, api_errors.Rejected)
            ),
        ),
        "\n## Metrics\n\n",
        "At `/metrics` of the process that serves REST. `path` is the route's template.\n\n",
        table(("name", "type", "labels", "meaning"), _metrics()),
    ]
    return "".join(parts)


def openapi_document() -> str:
    return json.dumps(document(ROUTES, HIGHEST), indent=1, ensure_ascii=False) + "\n"


def _from(route: Route) -> str:
    """Microversions are of the Compute API alone."""
    return f"2.{route.since}" if route.path.startswith("/v2.1") else ""


def _until(route: Route) -> str:
    return "" if route.until is None else f"2.{route.until}"


def _metrics() -> Iterator[Cells]:
    metrics = Metrics()
    metrics.end(metrics.begin(), "GET", "/", "200")
    for family in metrics.registry.collect():
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield code(name), family.type, ", ".join(map(code, labels)), family.documentation


def _classes(module: types.ModuleType, base: type) -> list[Any]:
    found = [each for _, each in inspect.getmembers(module, inspect.isclass) if issubclass(each, base)]
    return sorted(found, key=lambda each: inspect.getsourcelines(each)[1])


# --- states ---


def states_page() -> str:
    parts = [
        HEAD,
        "# States\n\n",
        "## What may be asked when\n\n",
        "Of a server that a cell holds, with no earlier request open and no task under way unless one is named. "
        "A delete is allowed always. "
        "Anything else is answered with 409, and the answer says which states allow it.\n\n",
        table(
            ("action", "vm_state", "also during these tasks"),
            (
                (
                    code("reboot HARD" if wish.endswith(".hard") else rule.name),
                    ", ".join(rule.states),
                    "any" if rule.tasks == ("*",) else ", ".join(rule.tasks),
                )
                for wish, rule in ALLOWED.items()
            ),
        ),
        "\n## What status shows\n\n",
        "From vm_state, unless a task shows. `UNKNOWN` while the leaf that holds the server is not heard.\n\n",
        table(
            ("vm_state", "status", "while one of these tasks is under way"),
            (
                (
                    str(state),
                    status,
                    "; ".join(f"{task}: {shown}" for task, shown in STATUS_OF_TASK.get(state, {}).items()),
                )
                for state, status in STATUS.items()
            ),
        ),
        "\nThe task shown from the moment of asking until the leaf reports its own:\n\n",
        table(("asked", "task_state"), ((code(wish), task or "none") for wish, task in TASK_OF_WISH.items())),
    ]
    kinds: tuple[tuple[str, type[enum.Enum]], ...] = (
        ("A server at its API cell (phase)", ServerPhase),
        ("A build at its leaf (phase)", BuildPhase),
        ("A cell", CellState),
        ("A host", HostState),
    )
    for title, kind in kinds:
        parts += [f"\n## {title}\n\n", said(kind), "\n\n", ", ".join(code(str(each.value)) for each in kind), "\n"]
    parts += [
        "\n## Errors inside\n\n",
        "Typed by what the caller does next (`cells/errors.py`).\n\n",
        table(
            ("class", "is a", "meaning"),
            (
                (code(each.__name__), code(each.__bases__[0].__name__), said(each))
                for each in _classes(cell_errors, cell_errors.CelltreeError)
            ),
        ),
    ]
    return "".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "records.md": records_page,
    "rest.md": rest_page,
    "states.md": states_page,
    "openapi.json": openapi_document,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
