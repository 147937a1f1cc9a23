"""The xenstore-* commands of a simulated dom0: same arguments, output and exit codes as Xen's.

Run by the small scripts in a dom0's bin folder as `python -m xenapi_host.simulator.xenstore_commands NAME ..`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from xenapi_host.simulator.xenstore import FILE, Xenstore, XenstoreError, absolute


def _options(given: list[str]) -> tuple[set[str], list[str]]:
    """Options come first; what follows is taken as it is, so that a value may begin with a hyphen."""
    options: set[str] = set()
    place = 0
    while place < len(given) and given[place].startswith("-") and given[place] != "-":
        place += 1
        if given[place - 1] == "--":
            break
        options.add(given[place - 1])
    return options, given[place:]


def _read(store: Xenstore, given: list[str]) -> int:
    options, paths = _options(given)
    for path in paths:
        value = store.read(path)
        if value is None:
            return _refuse(f"xenstore-read: couldn't read path {path}")
        print(f"{path}: {_shown(value)}" if "-p" in options else value.decode(errors="surrogateescape"))
    return 0 if paths else _usage("read", "[-p] key [...]")


def _write(store: Xenstore, given: list[str]) -> int:
    _, rest = _options(given)
    if not rest or len(rest) % 2:
        return _usage("write", "key value [...]")
    for path, value in zip(rest[::2], rest[1::2], strict=True):
        try:
            store.write(path, os.fsencode(value))
        except XenstoreError:
            return _refuse(f"xenstore-write: could not write path {path}")
    return 0


def _list(store: Xenstore, given: list[str]) -> int:
    options, paths = _options(given)
    for path in paths:
        names = store.children(path)
        if names is None:
            return _refuse(f"xenstore-list: could not list path {path}")
        for name in names:
            print(f"{path}/{name}" if "-p" in options else name)
    return 0 if paths else _usage("list", "[-p] key [...]")


def _ls(store: Xenstore, given: list[str]) -> int:
    options, paths = _options(given)
    for path in paths or ["/"]:
        if not store.exists(path):
            return _refuse(f"xenstore-ls: xs_directory ({path}): No such file or directory")
        whole = absolute(path)
        for below, value in store.below(path):
            if not below:
                continue
            shown = f'"{_shown(value)}"'
            if "-f" in options:
                full = ("" if whole == "/" else whole) + below
                print(f"{full} = {shown}")
            else:
                depth = below.strip("/").count("/")
                print(f"{' ' * depth}{below.rpartition('/')[2]} = {shown}")
    return 0


def _rm(store: Xenstore, given: list[str]) -> int:
    _, paths = _options(given)
    for path in paths:
        if not store.remove(path):
            return _refuse(f"xenstore-rm: could not remove path {path}")
    return 0 if paths else _usage("rm", "[-t] key [...]")


def _exists(store: Xenstore, given: list[str]) -> int:
    _, paths = _options(given)
    return 0 if paths and all(store.exists(path) for path in paths) else 1


def _chmod(store: Xenstore, given: list[str]) -> int:
    _, rest = _options(given)
    if len(rest) < 2 or any(mode[0] not in "rwbn" or not mode[1:].isdigit() for mode in rest[1:]):
        return _usage("chmod", "key <mode [modes...]>")
    try:
        store.set_permissions(rest[0], " ".join(rest[1:]))
    except XenstoreError:
        return _refuse(f"xenstore-chmod: Error occurred setting permissions on '{rest[0]}'")
    return 0


def _shown(value: bytes) -> str:
    text = value.decode("latin-1")
    return "".join(letter if " " <= letter <= "~" else f"\\{ord(letter):03o}" for letter in text)


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def _usage(name: str, arguments: str) -> int:
    return _refuse(f"Usage: xenstore-{name} [-h] [-s] {arguments}")


COMMANDS: dict[str, Callable[[Xenstore, list[str]], int]] = {
    "xenstore-read": _read,
    "xenstore-write": _write,
    "xenstore-list": _list,
    "xenstore-ls": _ls,
    "xenstore-rm": _rm,
    "xenstore-exists": _exists,
    "xenstore-chmod": _chmod,
}


def main(given: list[str]) -> int:
    """Do one command on the tree of the dom0 that the environment names."""
    name, *rest = given
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # it is a TextIOWrapper here
    try:
        return COMMANDS[name](Xenstore(Path(os.environ["CELLTREE_DOM0_ROOT"]) / FILE), rest)
    except XenstoreError as error:
        return _refuse(f"{name}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
