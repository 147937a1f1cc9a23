"""A host's control domain with its plugins, run as XenServer runs them: child processes with one XML-RPC argument."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from xenapi_host import vhd
from xenapi_host.plugins import SCRIPTS

MIB = 1024**2
UUIDS = [str(UUID(int=number, version=4)) for number in range(1, 17)]
TOKEN = "canary-token-5f1c"
REPOSITORY = Path(__file__).parents[2]


class PluginFailure(Exception):
    """The ErrorDescription a plugin answered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dom0:
    """A host's control domain: its plugin folder, one mounted SR, a PATH with vhd-util. `before`: what runs plugins."""

    root: Path
    before: tuple[str, ...] = ()

    @property
    def sr(self) -> Path:
        return self.root / "sr"

    def start(self, function: str, **params: object) -> subprocess.Popen[str]:
        argument = xmlrpc.client.dumps(("OpaqueRef:session", {"params": json.dumps(params)}), function)
        return subprocess.Popen(
            [
                *self.before,
                sys.executable,
                "-S",
                "-W",
                "error",
                str(self.root / "plugins" / "celltree_image.py"),
                argument,
            ],
            env={"PATH": f"{self.root / 'bin'}:/usr/bin:/bin"},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, function: str, **params: object) -> object:
        with self.start(function, **params) as running:
            try:
                said, complained = running.communicate(timeout=60)
            finally:
                running.kill()
        assert TOKEN not in said + complained
        assert (running.returncode, complained) == (0, "")
        ((answer,), _) = xmlrpc.client.loads(said)
        assert isinstance(answer, dict)
        if answer["Status"] == "Failure":
            raise PluginFailure(*answer["ErrorDescription"])
        return json.loads(answer["Value"])

    def download(self, url: str, **more: object) -> object:
        return self.call("download", **{**self.params(url), **more})

    def params(self, url: str) -> dict[str, object]:
        return {"url": url, "headers": {"X-Auth-Token": TOKEN}, "sr_path": str(self.sr), "uuids": UUIDS}

    def refusal(self, url: str, **more: object) -> tuple[str, str]:
        """Download and expect a failure that leaves everything under the root as it was, and names no path of it; its
        class and text."""
        before = self.tree()
        with pytest.raises(PluginFailure) as caught:
            self.download(url, **more)
        assert self.tree() == before
        code, function, kind, text = caught.value.args
        assert (code, function) == ("XENAPI_PLUGIN_FAILURE", "download")
        assert str(self.root) not in text
        return kind, text

    def tree(self) -> dict[str, tuple[int, int, int]]:
        """Every entry with its inode, size and time of change, folders by their inode only."""
        found = {}
        for path in self.root.rglob("*"):
            stat = path.lstat()
            folder = path.is_dir() and not path.is_symlink()
            found[str(path)] = (stat.st_ino, 0 if folder else stat.st_size, 0 if folder else stat.st_mtime_ns)
        return found


def a_dom0(root: Path) -> Dom0:
    host = Dom0(root=root)
    for name in ("plugins", "bin", "sr"):
        (host.root / name).mkdir(parents=True)
    for script in SCRIPTS:
        shutil.copy(script, host.root / "plugins")
    command = host.root / "bin" / "vhd-util"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m xenapi_host.vhd "$@"\n')
    command.chmod(0o755)
    return host


def fill(path: Path, offset: int, data: bytes) -> None:
    with vhd.Disk.open(path, writable=True) as disk:
        disk.pwrite(offset, data)


def image_of(leaf: Path) -> bytes:
    out = io.BytesIO()
    vhd.write_image(leaf, out)
    return out.getvalue()


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made, data


def in_sr(dom0: Dom0, number: int) -> Path:
    return dom0.sr / f"{UUIDS[number]}.vhd"
