"""The agent inside a simulated guest: the commands of the Unix agent, done to the guest's real files.

Requests are JSON {name, value}; an answer is (returncode, message), both text. Which code means success differs by
command and is part of the protocol: "D0" for keyinit, "0" for all others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from cells.errors import BadInput
from xenapi_host.agent_cipher import KeyExchange, Shared
from xenapi_host.simulator.guest_disk import GuestFiles

PROGRAM = "/usr/sbin/nova-agent"
"""Where the agent's program lies in a guest that has one."""
VERSION_FILE = "/usr/share/nova-agent/version"
VERSION = "1.39.1"
_LONGEST_UPDATE = 64 * 1024 * 1024
_FETCH_SECONDS = 20.0

Outcome = tuple[str, str]
Read = Callable[[str], str | None]
Children = Callable[[str], list[str]]


class GuestAgent:
    """One guest's agent, from its start to the domain's end."""

    def __init__(self) -> None:
        self._shared: Shared | None = None
        self.last = ""

    def answer(self, asked: str, files: GuestFiles, read: Read, children: Children) -> Outcome:
        """Do one request. `read` and `children` look into the domain's part of xenstore."""
        self.last = "?"
        try:
            request = json.loads(asked)
            name, value = str(request["name"]), str(request.get("value", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return "500", "the request is not JSON with name and value"
        self.last = name
        match name:
            case "version":
                return "0", (files.read(VERSION_FILE) or VERSION.encode()).decode().strip()
            case "features":
                return "0", ",".join(COMMANDS)
            case "keyinit":
                exchange = KeyExchange(os.urandom)
                self._shared = exchange.shared(value)
                return "D0", exchange.public
            case "password":
                return self._password(value, files)
            case "injectfile":
                return _injectfile(value, files)
            case "resetnetwork":
                return _resetnetwork(files, read, children)
            case "agentupdate":
                return _agentupdate(value, files)
            case "kmsactivate":
                files.write("/etc/kms-activation", value.encode())
                return "0", ""
            case _:
                self.last = "unknown command"
                return "404", f"No such command: {name[:40]}"

    def _password(self, box: str, files: GuestFiles) -> Outcome:
        shared, self._shared = self._shared, None
        if shared is None:
            return "500", "Key exchange has not been done"
        password = shared.decrypt(box).removesuffix("\n")
        entry = f"root:{_crypted(password)}:19000:0:99999:7:::"
        lines = (files.read("/etc/shadow") or b"").decode(errors="surrogateescape").splitlines()
        others = [line for line in lines if not line.startswith("root:")]
        files.write("/etc/shadow", ("\n".join([entry, *others]) + "\n").encode(errors="surrogateescape"), 0o640)
        return "0", ""


COMMANDS = (
    *("agentupdate", "features", "injectfile", "keyinit", "kmsactivate", "password", "resetnetwork", "version"),
)


def _crypted(password: str) -> str:
    done = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password + "\n", capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _injectfile(value: str, files: GuestFiles) -> Outcome:
    try:
        path, comma, content = base64.b64decode(value, validate=True).partition(b",")
    except binascii.Error:
        return "500", "Error doing base64 decoding of data"
    if not comma:
        return "500", "No comma between path and content"
    files.write(path.decode(errors="replace"), content)
    return "0", ""


def _agentupdate(value: str, files: GuestFiles) -> Outcome:
    url, comma, wanted = value.rpartition(",")
    if not comma or not url.startswith(("http://", "https://")):
        return "500", "An update is an URL and an MD5 sum with a comma between them"
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
            data = answer.read(_LONGEST_UPDATE + 1)
    except (OSError, urllib.error.URLError) as error:
        return "500", f"The update could not be fetched: {type(error).__name__}"
    if len(data) > _LONGEST_UPDATE or hashlib.md5(data, usedforsecurity=False).hexdigest() != wanted.strip().lower():
        return "500", "The update's MD5 sum is not the one given"
    files.write(PROGRAM, data, 0o755)
    files.write(VERSION_FILE, f"updated-{wanted.strip().lower()[:8]}\n".encode())
    return "0", ""


def _resetnetwork(files: GuestFiles, read: Read, children: Children) -> Outcome:
    host_name = read("vm-data/hostname")
    if host_name:
        files.write("/etc/hostname", f"{host_name}\n".encode())
    lines = ["# Written by nova-agent from xenstore.", "auto lo", "iface lo inet loopback"]
    servers: list[str] = []
    for number, name in enumerate(sorted(children("vm-data/networking"))):
        try:
            interface = json.loads(read(f"vm-data/networking/{name}") or "")
            lines += _interface(f"eth{number}", interface)
            servers += [server for server in interface.get("dns", []) if server not in servers]
        except (ValueError, KeyError, TypeError, BadInput):
            return "500", f"The configuration of interface {name} is not understood"
    files.write("/etc/network/interfaces", ("\n".join(lines) + "\n").encode())
    files.write("/etc/resolv.conf", "".join(f"nameserver {server}\n" for server in servers).encode())
    return "0", ""


def _interface(device: str, said: dict[str, Any]) -> list[str]:
    """One interface as ifupdown writes it; only addresses that are enabled are used."""
    lines = ["", f"# {said['label']} {said['mac'].lower()}", f"auto {device}"]
    gateway = said.get("gateway")
    for address in said.get("ips", []):
        if str(address["enabled"]) != "1":
            continue
        lines += [f"iface {device} inet static", f"    address {ipaddress.ip_address(address['ip'])}"]
        lines += [f"    netmask {ipaddress.ip_address(address['netmask'])}"]
        if gateway:
            lines += [f"    gateway {ipaddress.ip_address(gateway)}"]
            gateway = None
    for address in said.get("ip6s", []):
        if str(address.get("enabled", "1")) != "1":
            continue
        lines += [f"iface {device} inet6 static", f"    address {ipaddress.ip_address(address['ip'])}"]
        lines += [f"    netmask {int(address['netmask'])}"]
        if said.get("gateway_v6") or said.get("gateway6"):
            lines += [f"    gateway {ipaddress.ip_address(said.get('gateway_v6') or said['gateway6'])}"]
    for route in said.get("routes", []):
        way = f"{ipaddress.ip_address(route['route'])} netmask {ipaddress.ip_address(route['netmask'])}"
        lines += [f"    up route add -net {way} gw {ipaddress.ip_address(route['gateway'])}"]
    if len(lines) == 3:
        lines += [f"iface {device} inet dhcp"]
    return lines
