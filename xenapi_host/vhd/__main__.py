"""`vhd-util` as XenServer's plugins and storage manager call it: `python -m xenapi_host.vhd COMMAND ...`.

Same options, same printed lines, exit status 0 or an errno (22 for what is not valid), so that scripts written for
dom0 run unchanged against the simulator.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from xenapi_host import vhd
from xenapi_host.vhd.errors import DamagedVhd, VhdError, VhdInUse

_MIB = 1024**2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one vhd-util command; returns its exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except VhdInUse as error:
        print(error, file=sys.stderr)
        return errno.EBUSY
    except VhdError as error:
        print(error, file=sys.stderr)
        return errno.EINVAL
    except OSError as error:
        print(f"{options.name}: {error.strerror}", file=sys.stderr)
        return error.errno or errno.EIO


def _query(options: argparse.Namespace) -> int:
    found = vhd.info(options.name)
    if options.size:
        print(found.virtual_size // _MIB)
    if options.physical:
        print(found.file_size)
    if options.parent:
        if found.kind is not vhd.Kind.DIFFERENCING:
            print(f"{options.name} has no parent")
        elif found.parent_name is None or not (parent := _folder(options.name) / found.parent_name).exists():
            print("query failed")
            return errno.ENOENT
        else:
            print(parent)
    if options.fields:
        print(f"hidden: {int(found.hidden)}")
    if options.depth:
        print(f"chain depth: {len(vhd.chain(options.name))}")
    return 0


def _folder(name: str) -> Path:
    return Path(os.path.realpath(name)).parent


def _check(options: argparse.Namespace) -> int:
    try:
        if options.parents:
            vhd.check_chain(options.name)
        else:
            vhd.check(options.name)
    except DamagedVhd as damage:
        print(f"{damage.part} invalid: {damage.detail}")
        print(f"{damage.path} appears invalid; run vhd-util repair if only its footer is")
        return errno.EINVAL
    except VhdError as error:
        print(f"{options.name} is invalid: {error}")
        return errno.EINVAL
    for path in vhd.chain(options.name) if options.parents else (options.name,):
        print(f"{path} is valid")
    return 0


def _modify(options: argparse.Namespace) -> int:
    if options.parent:
        vhd.set_parent(options.name, options.parent)
    return 0


def _snapshot(options: argparse.Namespace) -> int:
    parent = vhd.info(options.parent)
    path = Path(options.parent)
    if not options.even_empty and parent.blocks_allocated == 0 and parent.parent_name is not None:
        # An empty layer would only lengthen the chain: its child takes the layer below.
        path = path.parent / parent.parent_name
    vhd.create_child(options.name, path, virtual_size=parent.virtual_size)
    return 0


def _coalesce(options: argparse.Namespace) -> int:
    vhd.coalesce(options.name)
    return 0


def _resize(options: argparse.Namespace) -> int:
    vhd.resize(options.name, options.mebibytes * _MIB)
    return 0


def _create(options: argparse.Namespace) -> int:
    make = vhd.create_fixed if options.reserve else vhd.create_dynamic
    make(options.name, options.mebibytes * _MIB)
    return 0


def _set(options: argparse.Namespace) -> int:
    if options.field != "hidden":
        print(f"unknown field {options.field}: only 'hidden' can be set", file=sys.stderr)
        return errno.EINVAL
    vhd.set_hidden(options.name, options.value != 0)
    return 0


def _repair(options: argparse.Namespace) -> int:
    vhd.repair(options.name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vhd-util", description="look at and change VHD files", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, allow_abbrev=False)
        found.set_defaults(command=run)
        found.add_argument("-n", dest="name", required=True, metavar="PATH", help="the VHD file")
        return found

    query = command("query", _query, "print facts of a file")
    query.add_argument("-v", dest="size", action="store_true", help="virtual size in MiB")
    query.add_argument("-s", dest="physical", action="store_true", help="file size in bytes")
    query.add_argument("-p", dest="parent", action="store_true", help="path of the parent")
    query.add_argument("-f", dest="fields", action="store_true", help="the hidden flag")
    query.add_argument("-d", dest="depth", action="store_true", help="files in the chain")
    check = command("check", _check, "check a file against the format")
    check.add_argument("-p", dest="parents", action="store_true", help="its ancestors too")
    check.add_argument("-i", dest="ignored", action="store_true", help="accepted for old callers; has no effect")
    modify = command("modify", _modify, "link to another parent")
    modify.add_argument("-p", dest="parent", metavar="PATH")
    snapshot = command("snapshot", _snapshot, "make an empty child")
    snapshot.add_argument("-p", dest="parent", metavar="PATH", required=True)
    snapshot.add_argument("-e", dest="even_empty", action="store_true", help="link to the parent even if it is empty")
    command("coalesce", _coalesce, "copy a child into its parent")
    resize = command("resize", _resize, "grow a disk")
    resize.add_argument("-s", dest="mebibytes", type=int, required=True, metavar="MIB")
    resize.add_argument("-f", dest="fast", action="store_true", help="accepted: growing is always fast here")
    resize.add_argument("-j", dest="journal", metavar="PATH", help="accepted: no journal is needed here")
    create = command("create", _create, "make an empty disk")
    create.add_argument("-s", dest="mebibytes", type=int, required=True, metavar="MIB")
    create.add_argument("-r", dest="reserve", action="store_true", help="a fixed disk")
    set_ = command("set", _set, "set a field")
    set_.add_argument("-f", dest="field", required=True)
    set_.add_argument("-v", dest="value", type=int, required=True)
    command("repair", _repair, "restore the footer from its copy")
    return parser


if __name__ == "__main__":
    sys.exit(main())
