"""xenstore, xe and the agent of simulated guests, as a plugin in dom0 meets them."""

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.xenserver.simulated import a_pool, a_vbd, a_vm, logged_in
from xenapi_host import vhd
from xenapi_host.agent_cipher import KeyExchange
from xenapi_host.image_maker import make_disk, read_file_of_disk
from xenapi_host.simulator.dom0 import Dom0
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.guest_agent import PROGRAM
from xenapi_host.simulator.vm_migration import move

MIB = 2**20


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it gives something."""
    for _ in range(2000):
        found = look()
        if found is not None:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("it does not come")


def run(dom0: Dom0, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=dom0.environment(), capture_output=True, text=True, cwd=dom0.root, check=False)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FullPool]:
    with a_pool(tmp_path / "pool", hosts=2) as pool:
        yield pool


class Guest:
    """A running VM with a real root disk, and the ways of dom0 to it."""

    def __init__(self, pool: FullPool, api: Any, disk: Path, **fields: Any) -> None:
        self.api, self.pool = api, pool
        sr = api.pool.get_default_SR(api.pool.get_all()[0])
        if sr == "OpaqueRef:NULL":
            sr = next(ref for ref, record in api.SR.get_all_records().items() if record["type"] == "ext")
        size = str(vhd.info(disk).virtual_size)
        record = {"SR": sr, "virtual_size": size, "type": "user", "sharable": False, "read_only": False}
        vdi = api.VDI.create({**record, "name_label": "root", "name_description": "", "other_config": {}})
        self.leaf = pool.storage.path(api.SR.get_uuid(sr), api.VDI.get_uuid(vdi))
        self.leaf.write_bytes(disk.read_bytes())
        self.vm = api.VM.create(a_vm(**fields))
        api.VBD.create(a_vbd(self.vm, vdi))
        api.VM.start(self.vm, False, False)

    @property
    def dom0(self) -> Dom0:
        return self.pool.engine.dom0s[self.api.VM.get_resident_on(self.vm)]

    @property
    def home(self) -> str:
        return f"/local/domain/{self.api.VM.get_domid(self.vm)}"

    def ask(self, name: str, value: str = "") -> dict[str, str]:
        """Put a request into xenstore, and wait for the answer."""
        store = self.dom0.xenstore
        store.write(f"{self.home}/data/host/one", json.dumps({"name": name, "value": value}))
        answer = until(lambda: store.text(f"{self.home}/data/guest/one"))
        store.remove(f"{self.home}/data/guest/one")
        found: dict[str, str] = json.loads(answer)
        return found

    def read(self, path: str) -> bytes:
        return read_file_of_disk(self.leaf, path)


Start = Callable[..., Guest]


@pytest.fixture
def start(pool: FullPool, tmp_path: Path) -> Iterator[Start]:
    with logged_in(pool) as session:

        def start(*, agent: bool = True, partitioned: bool = False, **fields: Any) -> Guest:
            files = tmp_path / "files"
            (files / "etc").mkdir(parents=True)
            (files / "etc/shadow").write_text("root:*:1:0:99999:7:::\nbin:*:1:0:99999:7:::\n")
            if agent:
                (files / PROGRAM[1:]).parent.mkdir(parents=True)
                (files / PROGRAM[1:]).write_text("#!/bin/sh\n")
            disk = tmp_path / "disk.vhd"
            make_disk(files, disk, size=16 * MIB, partitioned=partitioned)
            return Guest(pool, session.xenapi, disk, **fields)

        yield start


def test_domain_has_its_part_of_xenstore_while_it_runs(start: Start) -> None:
    guest = start(xenstore_data={"vm-data/hostname": "web-1", "not-passed-on": "x"}, name_label="web")
    dom0, home = guest.dom0, guest.home
    assert run(dom0, "xenstore-read", f"{home}/vm-data/hostname", f"{home}/name").stdout == "web-1\nweb\n"
    assert run(dom0, "xenstore-list", "/local/domain").stdout.split() == [home.rpartition("/")[2]]
    assert run(dom0, "xenstore-exists", f"{home}/not-passed-on").returncode == 1
    guest.api.VM.clean_reboot(guest.vm)
    assert guest.home != home
    assert run(dom0, "xenstore-exists", home).returncode == 1
    guest.api.VM.hard_shutdown(guest.vm)
    assert run(dom0, "xenstore-list", "/local/domain").stdout == ""


def test_xenstore_commands_speak_as_xens_do(pool: FullPool) -> None:
    dom0 = pool.dom0()
    assert run(dom0, "xenstore-write", "/tool/a", "one", "/tool/a/b", '-two "x"').returncode == 0
    assert run(dom0, "xenstore-ls", "/tool").stdout == 'a = "one"\n b = "-two "x""\n'
    assert run(dom0, "xenstore-ls", "-f", "/tool").stdout == '/tool/a = "one"\n/tool/a/b = "-two "x""\n'
    missing = run(dom0, "xenstore-read", "/tool/none")
    assert (missing.returncode, missing.stderr) == (1, "xenstore-read: couldn't read path /tool/none\n")
    assert run(dom0, "xenstore-chmod", "/tool/a", "n0", "r1").returncode == 0
    assert run(dom0, "xenstore-rm", "/tool/a").returncode == 0
    assert run(dom0, "xenstore-exists", "/tool/a/b").returncode == 1
    assert run(dom0, "xenstore-write", "/tool/big", "x" * 4090).returncode == 1
    assert run(dom0, "xenstore-write", "/tool/a b", "x").returncode == 1
    assert run(dom0, "xenstore-write", "own", "x").returncode == 0
    assert run(dom0, "xenstore-read", "/local/domain/0/own").stdout == "x\n"


@pytest.mark.parametrize("partitioned", [False, True], ids=["bare", "partitioned"])
def test_agent_changes_the_guests_real_disk(start: Start, partitioned: bool) -> None:
    guest = start(partitioned=partitioned)
    assert guest.ask("version") == {"returncode": "0", "message": "1.39.1"}
    assert "injectfile" in guest.ask("features")["message"].split(",")
    value = base64.b64encode(b"/srv/new/motd,one, two\n").decode()
    assert guest.ask("injectfile", value)["returncode"] == "0"
    assert guest.read("/srv/new/motd") == b"one, two\n"
    ours = KeyExchange(lambda length: bytes(range(length)))
    theirs = guest.ask("keyinit", ours.public)
    assert theirs["returncode"] == "D0"
    box = ours.shared(theirs["message"]).encrypt("open sesame\n")
    assert guest.ask("password", box) == {"returncode": "0", "message": ""}
    root, other = guest.read("/etc/shadow").decode().splitlines()
    crypted = root.split(":")[1]
    said = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", crypted.split("$")[2], "-stdin"],
        input="open sesame\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == crypted
    assert other == "bin:*:1:0:99999:7:::"
    assert guest.ask("password", box)["returncode"] == "500", "the key is good for one password"
    assert guest.ask("dance")["returncode"] == "404"


def test_agent_configures_the_network_as_xenstore_says(start: Start) -> None:
    network = {
        "label": "public",
        "mac": "AA:BB:CC:00:11:22",
        "ips": [
            {"ip": "10.0.0.2", "netmask": "255.255.255.0", "enabled": "1"},
            {"ip": "10.0.0.3", "netmask": "255.255.255.0", "enabled": "0"},
        ],
        "ip6s": [],
        "gateway": "10.0.0.1",
        "routes": [{"route": "10.1.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.9"}],
        "dns": ["10.0.0.53"],
    }
    data = {"vm-data/networking/AABBCC001122": json.dumps(network), "vm-data/hostname": "web-1"}
    guest = start(xenstore_data=data)
    assert guest.ask("resetnetwork") == {"returncode": "0", "message": ""}
    interfaces = guest.read("/etc/network/interfaces").decode()
    assert "address 10.0.0.2" in interfaces
    assert "10.0.0.3" not in interfaces
    assert "gateway 10.0.0.1" in interfaces
    assert guest.read("/etc/hostname") == b"web-1\n"
    assert guest.read("/etc/resolv.conf") == b"nameserver 10.0.0.53\n"
    guest.dom0.xenstore.write(f"{guest.home}/vm-data/networking/AABBCC001122", "{}")
    assert guest.ask("resetnetwork")["returncode"] == "500"


def test_guest_without_the_agents_program_never_answers(start: Start, pool: FullPool) -> None:
    guest = start(agent=False)
    store = guest.dom0.xenstore
    store.write(f"{guest.home}/data/host/one", json.dumps({"name": "version", "value": ""}))
    until(lambda: pool.agents.heard(guest.dom0) or None)
    assert store.exists(f"{guest.home}/data/host/one")
    assert not store.exists(f"{guest.home}/data/guest/one")


def test_guest_writes_its_console_and_moves_with_its_xenstore(start: Start) -> None:
    guest = start(name_label="mover")
    old, home = guest.dom0, guest.home
    console = old.root / "var/log/xen/guest" / f"console.{home.rpartition('/')[2]}"
    assert console.read_text().endswith("mover login: \n")
    old.xenstore.write(f"{home}/vm-data/mark", "here")
    other = next(host for host in guest.api.host.get_all() if host != guest.api.VM.get_resident_on(guest.vm))
    with guest.pool.engine.lock:
        db = guest.pool.engine.db
        move(guest.pool.engine, db.get("VM", guest.vm), db.get("host", other))
    assert guest.dom0 is not old
    assert guest.dom0.xenstore.text(f"{guest.home}/vm-data/mark") == "here"
    assert not old.xenstore.exists(home)


def test_xe_does_what_plugins_ask_of_it(pool: FullPool) -> None:
    dom0 = pool.dom0()
    with logged_in(pool) as session:
        api = session.xenapi
        host = api.host.get_all()[0]
        uuid = api.host.get_uuid(host)
        listed = run(dom0, "xe", "host-param-list", f"uuid={uuid}")
        assert listed.stdout.startswith("uuid ( RO) ")
        assert listed.stdout.splitlines()[0].endswith(f": {uuid}")
        lines = [line.strip() for line in listed.stdout.splitlines()]
        assert f"name-label ( RW): {api.host.get_name_label(host)}" in lines
        assert f"memory-free-computed ( RO): {api.host.compute_free_memory(host)}" in lines
        assert f"suspend-image-sr-uuid ( RW): {api.SR.get_uuid(api.host.get_suspend_image_sr(host))}" in lines
        assert "local-cache-sr ( RO): <not in database>" in lines
        (cpu,) = [line for line in lines if line.startswith("cpu_info (MRO): ")]  # as it is in xe, with this underscore
        assert "; modelname: Simulated CPU; " in cpu
        assert run(dom0, "xe", "host-disable", f"uuid={uuid}").returncode == 0
        assert api.host.get_enabled(host) is False
        assert run(dom0, "xe", "host-enable", f"host={api.host.get_name_label(host)}").returncode == 0
        assert api.host.get_enabled(host) is True
        vm = api.VM.create(a_vm())
        assert run(dom0, "xe", "vm-start", f"uuid={api.VM.get_uuid(vm)}").returncode == 0
        assert api.VM.get_power_state(vm) == "Running"
        again = run(dom0, "xe", "vm-start", f"uuid={api.VM.get_uuid(vm)}")
        assert (again.returncode, "VM_BAD_POWER_STATE" in again.stderr) == (1, True)
        assert run(dom0, "xe", "host-explode").returncode == 1
        unknown = run(dom0, "xe", "vm-start", "uuid=deaddead")
        assert (unknown.returncode, unknown.stderr) == (
            1,
            "The uuid you supplied was invalid.\ntype: VM\nuuid: deaddead\n",
        )
        assert run(dom0, "xe", "vm-start", "vm=nobody").stderr == "Error: No matching VMs found\n"
        assert run(dom0, "xe", "host-disable").stderr == "Required parameter not found: uuid\n"
