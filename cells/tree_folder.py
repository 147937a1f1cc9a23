"""A tree folder: the root key of a tree and, for each cell, its configuration, private key and certificate. Where
`celltree tree init` and `celltree cell register` write, and where the other commands look a cell up by name.

    root.key                 the private root key; keep it offline
    root.public
    cells/dfw-1.yaml         as cells.config reads it; may be copied to the cell's machine with the next two
    cells/dfw-1.key
    cells/dfw-1.certificate
    cells/east.image-secret  an API cell's: signs the tokens with which leaves fetch and store images
    withdrawn                which certificates count no longer, signed with the root key
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cells.config import CellConfig, identity, keys, load, write_keys
from cells.errors import BadInput
from cells.identity import Keys, RootKey, Trust, Withdrawn, new_key, public_of
from cells.names import CellName, Instant, cell_name

RandomBytes = Callable[[int], bytes]
TREE_VARIABLE = "CELLTREE_TREE"


def trees_folder() -> Path:
    """Where tree folders are kept that are known by name only."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "celltree"


class TreeFolder:
    """The folder of one tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells = path / "cells"
        if not self._public.exists():
            raise BadInput(f"{path} is not a tree folder (no root.public in it); make one: celltree tree init {path}")

    @classmethod
    def create(cls, path: Path, random_bytes: RandomBytes) -> "TreeFolder":
        """Make the root key of a new tree. What is there already is never replaced."""
        if (path / "root.key").exists() or (path / "root.public").exists():
            raise BadInput(f"{path} holds a tree already; choose another folder, or remove that one with its keys")
        root = RootKey(random_bytes(32))
        try:
            (path / "cells").mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path / "root.key", root.seed.hex())
            _write(path / "root.public", root.public.hex(), mode=0o644)
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}; choose another folder") from None
        return cls(path)

    @classmethod
    def find(cls, named: str = "") -> "TreeFolder":
        """The folder named on the command line (a path, or a name under the user's data folder), else by the variable
        CELLTREE_TREE, else the only one that is there."""
        word = named or os.environ.get(TREE_VARIABLE, "")
        if word:
            path = Path(word)
            return cls(path if path.exists() or os.sep in word else trees_folder() / word)
        there = sorted(each.parent for each in trees_folder().glob("*/root.public"))
        if len(there) == 1:
            return cls(there[0])
        found = f"there are several: {', '.join(each.name for each in there)}" if there else "there is none yet"
        raise BadInput(f"which tree? {found}; name its folder with --tree or in {TREE_VARIABLE}")

    @property
    def _public(self) -> Path:
        return self.path / "root.public"

    @property
    def root_public(self) -> bytes:
        return bytes.fromhex(self._public.read_text(encoding="ascii").strip())

    def root_key(self) -> RootKey:
        """The private root key; BadInput where it is kept elsewhere."""
        file = self.path / "root.key"
        try:
            return RootKey(bytes.fromhex(file.read_text(encoding="ascii").strip()))
        except (OSError, ValueError):
            raise BadInput(f"{file} cannot be read; certifying a cell needs the tree's private root key") from None

    def names(self) -> tuple[CellName, ...]:
        """The cells registered in this folder."""
        return tuple(sorted(file.stem for file in self.cells.glob("*.yaml")))

    def config_file(self, name: CellName) -> Path:
        return self.cells / f"{name}.yaml"

    def config(self, name: CellName) -> CellConfig:
        """A cell's configuration; BadInput lists the cells there are."""
        if name not in self.names():
            there = ", ".join(self.names()) or "none yet"
            raise BadInput(f"there is no cell {name!r} in {self.path}; there are: {there}")
        return load(self.config_file(name))

    def configs(self) -> tuple[CellConfig, ...]:
        return tuple(self.config(name) for name in self.names())

    def add(
        self,
        name: CellName,
        role: str,
        uuid: bytes,
        settings: Mapping[str, Any],
        random_bytes: RandomBytes,
        now: Instant,
    ) -> CellConfig:
        """Certify a new cell and write its three files. `settings` are the fields of its configuration besides."""
        cell_name(name)
        if self.config_file(name).exists():
            raise BadInput(f"the name {name!r} is taken in {self.path}; choose another, or detach and remove that cell")
        seed, public = new_key(random_bytes)
        certificate = self.root_key().certify(name, uuid, role, public, self._issue_at(name, now))
        raw = {
            "cell": name,
            "role": role,
            "key": f"{name}.key",
            "certificate": f"{name}.certificate",
            "root": "../root.public",
            **settings,
        }
        self.cells.mkdir(mode=0o700, exist_ok=True)
        self._write_key(name, Keys(seed=seed), certificate)
        _write(self.config_file(name), yaml.safe_dump(raw, sort_keys=False))
        return self.config(name)

    def renew(self, name: CellName, random_bytes: RandomBytes, now: Instant) -> CellConfig:
        """Give a cell a new key and certificate. The key file keeps the former keys, which open what was sealed for
        them; their certificates count until they are withdrawn."""
        config = self.config(name)
        says = identity(config).says
        seed, public = new_key(random_bytes)
        certificate = self.root_key().certify(name, says.uuid, says.role, public, max(now, says.issued + 1))
        held = keys(config)
        self._write_key(name, replace(held, seed=seed, former=(held.seed, *held.former)), certificate)
        return self.config(name)

    def forget_former_keys(self, name: CellName) -> int:
        """Take the keys that a cell had before out of its key file; how many there were. Their public halves stay: they
        tell what the cell has signed itself, should it be put back to a backup."""
        config = self.config(name)
        held = keys(config)
        gone = tuple(public_of(seed) for seed in held.former)
        self._write_key(name, Keys(seed=held.seed, public=(*gone, *held.public)), bytes.fromhex(config.certificate))
        return len(gone)

    def key_file(self, name: CellName) -> Path:
        return self.cells / f"{name}.key"

    def _write_key(self, name: CellName, held: Keys, certificate: bytes) -> None:
        _write(self.key_file(name), write_keys(held))
        _write(self.cells / f"{name}.certificate", certificate.hex(), mode=0o644)

    def _issue_at(self, name: CellName, now: Instant) -> Instant:
        # Of a name that was withdrawn and is used again, whatever this machine's clock says.
        return max(now, self.withdrawn()[1].before.get(name, 0))

    def withdrawn(self) -> tuple[bytes, Withdrawn]:
        """The list of certificates that count no longer: in its wire form (empty: there is none), and as it reads."""
        try:
            wire = bytes.fromhex((self.path / "withdrawn").read_text(encoding="ascii").strip())
        except FileNotFoundError:
            return b"", Withdrawn()
        return wire, Trust(self.root_public).read_withdrawn(wire)

    def withdraw(self, name: CellName, before: Instant, now: Instant) -> bytes:
        """Put a cell's certificates issued before an instant on the list; the list in its wire form."""
        _, known = self.withdrawn()
        wire = self.root_key().withdraw(known, {name: before}, now)
        _write(self.path / "withdrawn", wire.hex(), mode=0o644)
        return wire

    def image_secret(self, name: CellName) -> Path:
        """Where an API cell's secret for image tokens is."""
        return (self.cells / f"{name}.image-secret").absolute()

    def make_image_secret(self, name: CellName, random_bytes: RandomBytes) -> None:
        _write(self.image_secret(name), random_bytes(32).hex())

    def remove(self, name: CellName) -> None:
        """Forget a cell's files."""
        for suffix in ("yaml", "key", "certificate", "image-secret"):
            (self.cells / f"{name}.{suffix}").unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    draft.replace(path)
