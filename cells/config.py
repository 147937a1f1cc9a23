"""The configuration of one cell's daemon: a YAML file, read once at start, whose values are passed to who needs them.

cell: dfw-1                  # the name its certificate gives
role: compute                # an entry point of the group celltree.roles
database: mysql+pymysql://dfw-1:secret@127.0.0.1:3306/dfw_1
broker: amqp://dfw-1:secret@127.0.0.1:5672/dfw-1
key: dfw-1.key               # 32 bytes in hexadecimal; see `keys`; paths are relative to this file
certificate: dfw-1.certificate
root: root.public
tick: 10
amqp:                        # of RabbitMQ, here and at neighbours; see cells.broker.options
  tls: {authorities: ca.pem, certificate: dfw-1.pem, key: dfw-1.pem.key}
settings: {}                 # the role's own; see its Settings class
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cells import tls
from cells.broker.options import AmqpOptions
from cells.errors import BadInput
from cells.identity import Identity, Keys, Trust
from cells.names import CellName, cell_name

S = TypeVar("S")
PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellConfig:
    """All a daemon is told when it starts. `daemon`: this daemon's own name among those of the cell. `tick` (seconds):
    how often hellos and capacity go out. `batch`: most records in one transaction. `threads`: most jobs at once,
    `per_lane`: most at once on one host. `listen`: host:port at which the
    role's front door is served by this process (an API cell's REST); empty: not here. `posting`: also take
    requests of programs beside the cell over its broker (oslo.messaging RPC). `amqp`: how to use RabbitMQ."""

    cell: CellName
    role: str
    database: str = field(repr=False)
    broker: str = field(repr=False)
    key: str = field(repr=False)
    certificate: str
    root: str
    daemon: str = "main"
    tick: float = 10.0
    batch: int = 64
    threads: int = 16
    per_lane: int = 4
    listen: str = ""
    posting: bool = False
    amqp: AmqpOptions = field(default_factory=AmqpOptions)
    settings: Mapping[str, Any] = field(default_factory=dict)


def load(path: Path) -> CellConfig:
    """Read a configuration file; BadInput names the file, the field and the remedy. Key and certificate files are
    read here: the fields hold their contents afterwards."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"configuration {path} cannot be read: {error.strerror}; name it with --config") from None
    except UnicodeDecodeError:
        raise BadInput(f"configuration {path} is not UTF-8 text; write it anew") from None
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"configuration {path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"configuration {path} must be a mapping of settings, like 'cell: dfw-1'")
    config = fill(CellConfig, raw, str(path))
    return dataclasses.replace(
        tls.with_whole_paths(config, path.parent.absolute()),
        cell=cell_name(config.cell),
        key=_hex_file(path, "key", config.key),
        certificate=_hex_file(path, "certificate", config.certificate),
        root=_hex_file(path, "root", config.root),
    )


def identity(config: CellConfig) -> Identity:
    """The cell's identity; BadInput when key, certificate, root or name do not fit together."""
    found = Identity(keys(config), bytes.fromhex(config.certificate), Trust(bytes.fromhex(config.root)))
    if (found.name, found.says.role) != (config.cell, config.role):
        raise BadInput(
            f"the certificate is of {found.says.role} cell {found.name!r}, the configuration of {config.role} cell "
            f"{config.cell!r}; use the certificate that `celltree cell register` made for it"
        )
    return found


def keys(config: CellConfig) -> Keys:
    """What is in a cell's key file, a line each: the private key it signs with, then those it had before; after the
    word `public` the public half of one whose private half has been taken out."""
    lines = [line.split() for line in config.key.splitlines()]
    seed, *former = (bytes.fromhex(words[0]) for words in lines if len(words) == 1)
    public = tuple(bytes.fromhex(words[1]) for words in lines if len(words) > 1)
    return Keys(seed=seed, former=tuple(former), public=public)


def write_keys(keys: Keys) -> str:
    """The text of a key file."""
    return "\n".join(
        [*(seed.hex() for seed in (keys.seed, *keys.former)), *(f"{PUBLIC} {key.hex()}" for key in keys.public)]
    )


def fill(shape: type[S], raw: Mapping[str, Any], where: str) -> S:
    """A settings dataclass from a mapping: unknown names, missing ones and wrong types are BadInput with the remedy."""
    hints = typing.get_type_hints(shape)
    names = {each.name: each for each in dataclasses.fields(shape)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(names), key=str)
    if unknown:
        raise BadInput(f"{where}: {unknown[0]!r} is not a setting; there are: {', '.join(sorted(names))}")
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in raw.items()}
    for name, each in names.items():
        needed = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise BadInput(f"{where}: {name} is missing; add it")
    return shape(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    hint = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise BadInput(f"{where} must be a mapping")
        return fill(hint, value, where)  # type: ignore[arg-type]
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, StrEnum):
        words = [str(each) for each in origin]
        if value not in words:
            raise BadInput(f"{where} must be one of {', '.join(words)}, not {value!r}")
        return origin(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], each, where) for each in value)
    wanted = dict if origin in (Mapping, dict) or origin is types.MappingProxyType else origin
    if hasattr(wanted, "__mro__") and issubclass(wanted, Mapping):
        wanted = dict
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise BadInput(f"{where} must be {_word(wanted)}, not {value!r}")
    return value


def _word(kind: type) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    return words.get(kind, kind.__name__)


def _hex_file(config: Path, name: str, value: str) -> str:
    path = config.parent / value
    try:
        text = path.read_text(encoding="ascii").strip()
        bytes.fromhex(text.replace(f"{PUBLIC} ", "") if name == "key" else text)
    except OSError as error:
        raise BadInput(f"{config}: {name} file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"{config}: {name} file {path} must hold hexadecimal digits only") from None
    return text
