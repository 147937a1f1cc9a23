"""dom0 of one simulated host: a private root folder with its commands, plugins and mounted repositories.

Plugin scripts run here as XAPI runs them: one argument (an XML-RPC methodCall), an environment of their own, standard
output one methodResponse. What only our stand-in commands need is told by CELLTREE_ variables.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from xml.parsers.expat import ExpatError
from xmlrpc.client import Fault, ResponseError, loads

import xenapi_host
from xenapi_host import plugins
from xenapi_host.simulator import block_commands, dom0_files, xenstore_commands
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.vhd_storage import VhdStorage
from xenapi_host.simulator.wire_xml import method_call_text
from xenapi_host.simulator.xenstore import FILE, Xenstore

PLUGIN_FOLDER = Path("etc/xapi.d/plugins")
MOUNTS = Path("var/run/sr-mount")
_FOLDERS = ("bin", "etc/xapi.d/plugins", "var/run/sr-mount", "var/log/xen/guest", "tmp", "images", "boot/guest")
_END = "</methodResponse>"
_SOURCE = Path(xenapi_host.__file__).resolve().parent.parent


class Dom0:
    """One host's private root. Built anew over what is already there."""

    def __init__(self, root: Path, storage: VhdStorage, socket: Path) -> None:
        self.root = root.resolve()
        self.storage = storage
        self.socket = socket.resolve()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        for folder in _FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._command("python3", shlex.quote(sys.executable))
        self._command("vhd-util", f"{shlex.quote(sys.executable)} -m xenapi_host.vhd")
        self._command("xe", f"{shlex.quote(sys.executable)} -m xenapi_host.simulator.xe")
        for name in xenstore_commands.COMMANDS:
            self._command(name, f"{shlex.quote(sys.executable)} -m xenapi_host.simulator.xenstore_commands {name}")
        for name in block_commands.COMMANDS:
            self._command(name, f"{shlex.quote(sys.executable)} -m xenapi_host.simulator.block_commands {name}")
        self.xenstore = Xenstore(self.root / FILE)
        for script in plugins.SCRIPTS:
            self.install(script.name, script.read_text(encoding="utf-8"))

    def _command(self, name: str, does: str) -> None:
        path = f"{_SOURCE}{os.pathsep}{Path(dom0_files.__file__).parent}"
        self._write(self.root / "bin" / name, f'#!/bin/sh\nPYTHONPATH={shlex.quote(path)} exec {does} "$@"\n')

    def install(self, name: str, text: str, *, mode: int = 0o755) -> None:
        """Put a script into the plugin folder, as an operator would."""
        self._write(self.root / PLUGIN_FOLDER / name, text, mode)

    @staticmethod
    def _write(path: Path, text: str, mode: int = 0o755) -> None:
        """In one step, so that a script that is starting now sees the old or the new file."""
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        new.replace(path)

    def mount(self, sr: str) -> str:
        """Show a repository's folder here; its path is given to plugins."""
        link = self.root / MOUNTS / sr
        if not link.is_symlink():
            link.symlink_to(self.storage.folder(sr).resolve(), target_is_directory=True)
        return str(link)

    def stop(self) -> None:
        """End the scripts that still run, as a host that goes down would; each may clear up after SIGTERM."""
        self._stopped = True
        for script in list(self._running):
            script.terminate()

    def crash(self) -> None:
        """The host has died, and every script with it."""
        for script in list(self._running):
            script.kill()

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "LANG": "C.UTF-8",
            "CELLTREE_DOM0_ROOT": str(self.root),
            "CELLTREE_XAPI_SOCKET": str(self.socket),
        }

    def run_plugin(self, name: str, function: str, args: dict[str, str], session: str) -> str:
        """Run one function of a plugin; blocks until the script ends. The engine's lock must not be held."""
        folder = self.root / PLUGIN_FOLDER
        if name not in os.listdir(folder):
            raise Failure("XENAPI_MISSING_PLUGIN", name)
        call = method_call_text(function, [session, args]).decode()
        try:
            script = subprocess.Popen(
                [str(folder / name), call],
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError:
            raise Failure("XENAPI_PLUGIN_FAILURE", "non-zero exit", "", "") from None
        self._running.add(script)
        if self._stopped:
            script.terminate()
        try:
            said = script.communicate()
        finally:
            self._running.discard(script)
        output, errors = (part.decode(errors="replace") for part in said)
        if script.returncode < 0:
            number = signal.Signals(-script.returncode).name
            raise Failure("XENAPI_PLUGIN_FAILURE", f"signal: {number}", output, errors)
        if script.returncode:
            raise Failure("XENAPI_PLUGIN_FAILURE", "non-zero exit", output, errors)
        return _outcome(output)


def _outcome(output: str) -> str:
    """The Value of a plugin's methodResponse, or its failure. XAPI reads one document and leaves what follows it."""
    first, end, _ = output.partition(_END)
    try:
        (answer,), _ = loads(first + end)
    except Fault as fault:
        raise Failure("XENAPI_PLUGIN_FAILURE", "fault", str(fault.faultCode), fault.faultString) from None
    except (ExpatError, ResponseError, ValueError, TypeError):
        why = "expected root element line 1" if output.strip() else "unexpected end of input line 1"
        raise Failure("XENAPI_PLUGIN_FAILURE", "failed to parse plugin output", output, why) from None
    if not isinstance(answer, dict) or "Status" not in answer:
        raise Failure("XENAPI_PLUGIN_FAILURE", "failed to parse plugin output", output, "no Status")
    if answer["Status"] != "Success":
        raise Failure(*[str(part) for part in answer.get("ErrorDescription", ["XENAPI_PLUGIN_FAILURE"])])
    value = answer.get("Value")
    if not isinstance(value, str):
        raise internal(f"XMLRPC.RunTimeTypeError(\"unbox: Element={type(value).__name__} should contain 'string'\", _)")
    return value
