"""Switching a host off by a command of its operator's: a management board, a power strip. A fence, by a program."""

import shlex
import subprocess

from cells.errors import BadInput, Permanent

_SECONDS = 120.0


def power_off(command: str, name: str, uuid: str) -> None:
    """Run the command, in which {host} and {uuid} stand for the host; Permanent unless it ends with 0, which must mean
    that the host is off."""
    words = [word.replace("{host}", name).replace("{uuid}", uuid) for word in shlex.split(command)]
    if not words or not words[0]:
        raise BadInput("the command to switch the host off is empty; name a program")
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(f"{name} may be on: {words[0]} could not be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise Permanent(f"{name} may be on: {words[0]} ended with {done.returncode} ({said})")
