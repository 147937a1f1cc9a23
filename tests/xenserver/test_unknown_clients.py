"""What programs that we have never seen may ask: every object by every getter in both encodings, typed as the data
model says, and the sequences of well-known clients."""

import http.client
import json
import re
from urllib.parse import urlsplit
from xmlrpc.client import DateTime, ServerProxy

import pytest

from tests.xenserver.simulated import a_disk, a_pool, a_vbd, a_vif, a_vm, failure_of, logged_in
from xenapi_host.simulator.model import model

MIB = 2**20
WAYS = ("read", "write")
MOST = 3  # objects of a class that are looked at field by field
_MAP = re.compile(r"\((.+) -> (.+)\) map\Z")
_TIME = re.compile(r"\d{8}T\d\d:\d\d:\d\dZ\Z")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool in which something of every kind has been made."""
    with a_pool(tmp_path_factory.mktemp("pool"), hosts=2) as made, logged_in(made) as session:
        api = session.xenapi
        here = api.host.get_all()[0]
        sr = api.PBD.get_SR(api.host.get_PBDs(here)[0])
        vm = api.VM.create(a_vm(name_label="probed"))
        disk = api.VDI.create(a_disk(sr))
        api.VBD.create(a_vbd(vm, disk))
        api.VBD.create(a_vbd(vm, "", userdevice="3", type="CD", mode="RO", empty=True, bootable=False))
        api.VIF.create(a_vif(vm, api.network.get_all()[0]))
        api.VM.start_on(vm, here, False, False)
        api.VM.snapshot(vm, "kept")
        api.VDI.enable_cbt(disk)
        api.task.create("mine", "")
        api.message.create("m", "3", "VM", api.VM.get_uuid(vm), "body")
        api.secret.create({"value": "s", "other_config": {}})
        yield made


@pytest.fixture
def session(pool):
    with logged_in(pool) as made:
        yield made


class Xml:
    """XML-RPC without the SDK, so that answers are seen as they came."""

    def __init__(self, pool):
        self._proxy = ServerProxy(pool.url, allow_none=True)
        self.session = self.call("session.login_with_password", "root", "xen")

    def call(self, method, *params):
        answer = getattr(self._proxy, method)(*params)
        assert answer["Status"] == "Success", (method, answer["ErrorDescription"])
        return answer["Value"]

    def close(self):
        self._proxy("close")()

    def right(self, kind, value):
        if kind == "int":
            return type(value) is str and re.fullmatch(r"-?\d+", value)
        if kind == "datetime":
            return isinstance(value, DateTime) and _TIME.match(str(value.value))
        return _right(self.right, kind, value)


class Json:
    """JSON-RPC 2."""

    def __init__(self, pool):
        self._connection = http.client.HTTPConnection(urlsplit(pool.url).netloc, timeout=60)
        self.session = self.call("session.login_with_password", "root", "xen")

    def call(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 0})
        self._connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        assert response.getheader("Content-Type") == "application/json"
        answer = json.loads(response.read())
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def close(self):
        self._connection.close()

    def right(self, kind, value):
        if kind == "int":
            return type(value) is int
        if kind == "datetime":
            return type(value) is str and _TIME.match(value)
        return _right(self.right, kind, value)


def _right(deeper, kind, value):
    """Whether a value is of a kind, as far as both encodings have it alike."""
    pair = _MAP.match(kind)
    if pair:
        return type(value) is dict and all(_key(pair[1], k) and deeper(pair[2], v) for k, v in value.items())
    if kind.endswith(" set"):
        return type(value) is list and all(deeper(kind.removesuffix(" set"), item) for item in value)
    if kind.startswith("enum "):
        return value in model().enums[kind.removeprefix("enum ")]
    if kind.endswith(" ref"):
        return type(value) is str and (value.startswith("OpaqueRef:") or value == "")
    if kind.endswith(" record"):
        return type(value) in (dict, str)
    return type(value) is {"bool": bool, "float": float, "string": str}[kind]


def _key(kind, key):
    """Keys of maps are texts, whatever they stand for."""
    if kind == "int":
        return re.fullmatch(r"-?\d+", key)
    return type(key) is str and (not kind.startswith("enum ") or key in model().enums[kind.removeprefix("enum ")])


LISTED = sorted(
    name
    for name, known in model().classes.items()
    if "get_all_records" in known.messages and not known.messages["get_all_records"].removed
)


@pytest.mark.parametrize("encoding", [Xml, Json])
def test_every_object_is_told_alike_by_every_getter_and_typed_by_the_data_model(pool, encoding):
    client = encoding(pool)
    looked_at, wrong = 0, []
    for name in LISTED:
        known = model().classes[name]
        records = client.call(f"{name}.get_all_records", client.session)
        if "get_all" in known.messages and name != "message":
            assert sorted(client.call(f"{name}.get_all", client.session)) == sorted(records), name
        for ref, record in list(records.items())[:MOST]:
            if name != "session":
                assert client.call(f"{name}.get_record", client.session, ref) == record, name
            assert set(record) == set(known.fields), name
            for field, value in record.items():
                kind = known.fields[field].kind
                if not client.right(kind, value):
                    wrong.append(f"{name}.{field} is no {kind}: {value!r}")
                getter = known.messages.get(f"get_{field}")
                if getter is None or getter.removed or len(getter.parameters) != 1:
                    continue
                looked_at += 1
                told = client.call(f"{name}.get_{field}", client.session, ref)
                if told != value and (name, field) != ("session", "last_active"):
                    wrong.append(f"{name}.get_{field} says {told!r}, the record {value!r}")
            if "get_by_uuid" in known.messages and not known.messages["get_by_uuid"].removed:
                assert client.call(f"{name}.get_by_uuid", client.session, record["uuid"]) == ref
            if "get_by_name_label" in known.messages:
                assert ref in client.call(f"{name}.get_by_name_label", client.session, record["name_label"])
    client.close()
    assert not wrong, "\n".join(wrong)
    assert looked_at > 700


def test_every_reference_leads_to_an_object(session):
    """Null references apart, and those to classes whose objects XAPI does not let clients see."""
    kept = {name: session.xenapi_request(f"{name}.get_all_records", ()) for name in LISTED}
    unseen = {"VBD_metrics", "VIF_metrics", "session"}
    dangling = []
    for name, records in kept.items():
        for record in records.values():
            for field, value in record.items():
                kind = model().classes[name].fields[field].kind
                target = kind.removesuffix(" set").removesuffix(" ref")
                if target not in kept or target in unseen or "map" in kind:
                    continue
                for ref in value if kind.endswith("set") else [value]:
                    if ref not in ("", "OpaqueRef:NULL") and ref not in kept[target]:
                        dangling.append(f"{name}.{field} -> {target} {ref}")
    assert not dangling, "\n".join(sorted(set(dangling)))


# -- sequences of well-known clients, as they were seen to ask --


class Orchestra:
    """xen-api, the library of Xen Orchestra: JSON-RPC 2, classes by system.listMethods, objects by events."""

    def __init__(self, pool):
        self.pool = pool
        self.client = Json(pool)
        self.objects = {}
        methods = self.client.call("system.listMethods")
        self.types = sorted({m.partition(".")[0] for m in methods if m.endswith(".get_all_records")})
        self.token = self.call("event.inject", "pool", self.call("pool.get_all")[0])

    def call(self, method, *params):
        return self.client.call(method, self.client.session, *params)

    def fetch(self):
        """Every class at once, those left out that XAPI does not know any more."""
        for name in self.types:
            known = model().classes.get(name)
            if known is None or known.messages["get_all_records"].removed:
                continue
            for ref, record in self.call(f"{name}.get_all_records").items():
                self.objects[ref] = record

    def follow(self):
        """One turn of its loop: what has changed since the last."""
        told = self.call("event.from", ["*"], self.token, 0.05)
        self.token = told["token"]
        for event in told["events"]:
            if event["operation"] == "del":
                self.objects.pop(event["ref"], None)
            else:
                self.objects[event["ref"]] = event["snapshot"]
        return told


def test_orchestra_sees_the_pool_by_events_as_it_is_by_asking(pool):
    client = Orchestra(pool)
    client.fetch()
    vm = client.call("VM.create", a_vm(name_label="followed"))
    task = client.call("Async.VM.start", vm, False, False)
    client.follow()
    assert client.objects[vm]["name_label"] == "followed"
    pool.workers.join()
    told = client.follow()
    assert client.objects[vm] == client.call("VM.get_record", vm)
    assert client.objects[task]["status"] == "success"
    assert told["valid_ref_counts"]["task"] == len(client.call("task.get_all"))
    client.call("VM.hard_shutdown", vm)
    client.call("VM.destroy", vm)
    client.follow()
    assert vm not in client.objects
    client.client.close()


def test_orchestra_puts_a_disk_under_a_path_that_ends_in_a_slash(pool, session):
    disk = session.xenapi.VDI.create(a_disk(session.xenapi.SR.get_all()[0], 4 * MIB))
    query = f"?vdi={disk}&format=raw&session_id={session._session}"
    connection = http.client.HTTPConnection(urlsplit(pool.url).netloc, timeout=60)
    connection.request("PUT", f"/import_raw_vdi/{query}", b"7" * MIB)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")  # the answer comes first, its end when all is written
    connection.close()
    connection = http.client.HTTPConnection(urlsplit(pool.url).netloc, timeout=60)
    connection.request("GET", f"/export_raw_vdi/{query}")
    assert connection.getresponse().read() == b"7" * MIB + bytes(3 * MIB)
    connection.close()
    session.xenapi.VDI.destroy(disk)


def test_fence_agent_finds_a_vm_by_name_and_cycles_its_power(session):
    api = session.xenapi
    halted = api.VM.create(a_vm(name_label="fenced"))
    records = {ref: api.VM.get_record(ref) for ref in api.VM.get_all()}
    (ref,) = [
        ref
        for ref, vm in records.items()
        if vm["name_label"] == "fenced" and not (vm["is_a_template"] or vm["is_control_domain"])
    ]
    assert ref == halted
    api.VM.start(ref, False, True)
    api.VM.hard_reboot(ref)
    api.VM.hard_shutdown(ref)
    assert api.VM.get_power_state(ref) == "Halted"
    api.VM.destroy(ref)


def test_ansible_deploys_from_a_template_reconfigures_and_removes(session):
    """The calls of community.general.xenserver_guest."""
    api = session.xenapi
    sr, network = api.SR.get_all()[0], api.network.get_all()[0]
    template = api.VM.create(a_vm(name_label="template", is_a_template=True, affinity="OpaqueRef:NULL"))
    api.VBD.create(a_vbd(template, api.VDI.create(a_disk(sr, 64 * MIB))))
    api.VBD.create(a_vbd(template, "", userdevice="3", type="CD", mode="RO", empty=True, bootable=False))
    assert re.match(r"\d+\.\d+\.\d+", api.host.get_software_version(api.host.get_all()[0])["product_version"])
    vm = api.VM.copy(template, "deployed", sr)
    api.VM.provision(vm)
    api.VM.set_VCPUs_max(vm, "4")
    api.VM.set_VCPUs_at_startup(vm, "4")
    api.VM.set_memory_limits(vm, *[str(1024 * MIB)] * 4)
    first, cd = sorted((api.VBD.get_record(ref) for ref in api.VM.get_VBDs(vm)), key=lambda vbd: vbd["userdevice"])
    assert (cd["VDI"], cd["empty"]) == ("OpaqueRef:NULL", True)
    api.VDI.resize(first["VDI"], str(128 * MIB))
    device = api.VM.get_allowed_VBD_devices(vm)[0]
    api.VBD.create(a_vbd(vm, api.VDI.create(a_disk(sr)), userdevice=device, bootable=False))
    vif = api.VIF.create(a_vif(vm, network, device=api.VM.get_allowed_VIF_devices(vm)[0]))
    api.VM.start(vm, False, False)
    api.VIF.configure_ipv4(vif, "Static", "192.0.2.7/24", "192.0.2.1")
    task = session.xenapi_request("Async.VM.clean_shutdown", (vm,))
    while api.task.get_status(task) == "pending":
        pass
    assert api.task.get_status(task) == "success"
    api.task.destroy(task)
    disks = [api.VBD.get_VDI(ref) for ref in api.VM.get_VBDs(vm)]
    for ref in (vm, template):
        api.VM.destroy(ref)
    for disk in disks:
        if disk != "OpaqueRef:NULL":
            api.VDI.destroy(disk)


def test_packer_clones_a_template_boots_it_and_waits_for_the_guest(session):
    api = session.xenapi
    template = api.VM.get_by_name_label("Other install media")[0]
    vm = api.VM.clone(template, "built")
    api.VM.set_is_a_template(vm, False)
    api.VM.set_HVM_boot_params(vm, {"order": "cd"})
    api.VM.set_memory_limits(vm, *[str(512 * MIB)] * 4)
    api.VM.set_platform(vm, {"viridian": "false", "nx": "true"})
    api.VBD.create(a_vbd(vm, api.VDI.create(a_disk(api.SR.get_all()[0])), userdevice="0"))
    api.VIF.create(a_vif(vm, api.network.get_all()[0], MAC="02:00:00:00:12:34", MAC_autogenerated=False))
    api.VM.start(vm, False, False)
    metrics = api.VM_guest_metrics.get_record(api.VM.get_guest_metrics(vm))
    assert metrics["PV_drivers_up_to_date"] is True
    assert api.VM.get_domid(vm) != "-1"
    assert api.console.get_record(api.VM.get_consoles(vm)[0])["location"].startswith("https://")
    api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)


def test_a_plugin_of_novas_that_answers_twice_is_heard_once(pool, session):
    """os-xenapi's xenhost.py prints the answer of its pickled functions, then that it knows no such plain one."""
    said = "<methodResponse><params><param><value><struct><member><name>Status</name><value>{}</value></member>{}"
    end = "</struct></value></param></params></methodResponse>"
    member = "<member><name>{}</name><value>{}</value></member>"
    first = said.format("Success", member.format("Value", "heard")) + end
    second = said.format("Failure", member.format("ErrorDescription", "<array><data></data></array>")) + end
    host = session.xenapi.host.get_all()[0]
    pool.engine.dom0s[host].install(
        "twice", f"#!/bin/sh\ncat <<'EOF'\n{first}\n\n<?xml version='1.0'?>\n{second}\nEOF\n"
    )
    assert session.xenapi.host.call_plugin(host, "twice", "main", {}) == "heard"


def test_nova_asks_for_diagnostics_by_the_names_of_devices(session):
    api = session.xenapi
    vm = api.VM.create(a_vm(name_label="diagnosed"))
    api.VBD.create(a_vbd(vm, api.VDI.create(a_disk(api.PBD.get_SR(api.host.get_PBDs(api.host.get_all()[0])[0])))))
    api.VIF.create(a_vif(vm, api.network.get_all()[0]))
    api.VM.start(vm, False, False)
    (vbd,) = api.VM.get_VBDs(vm)
    names = ["cpu0", "memory", "vif_0_rx", "vif_0_tx", *(f"vbd_{api.VBD.get_device(vbd)}_{way}" for way in WAYS)]
    assert all(api.VM.query_data_source(vm, name) >= 0 for name in names)
    api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)


def test_terraform_makes_a_network_of_a_vlan_and_takes_it_away(session):
    """The provider's xenserver_network_vlan, which finds the interface by its NIC's name."""
    api = session.xenapi
    made = api.network.create({"name_label": "vlan 12", "MTU": "1500", "managed": True, "other_config": {}})
    (nic, *_) = [
        ref
        for ref, pif in api.PIF.get_all_records().items()
        if pif["physical"] and pif["device"] == "eth0" and pif["bond_slave_of"] == "OpaqueRef:NULL"
    ]
    assert len(api.pool.create_VLAN_from_PIF(nic, made, "12")) == 2
    for pif in api.network.get_PIFs(made):
        api.VLAN.destroy(api.PIF.get_VLAN_master_of(pif))
    api.network.destroy(made)


def test_vagrant_finds_the_network_between_guests_and_their_host(session):
    (ref,) = [
        ref
        for ref, network in session.xenapi.network.get_all_records().items()
        if network["other_config"].get("is_host_internal_management_network")
    ]
    assert session.xenapi.network.get_bridge(ref) == "xenapi"


@pytest.mark.parametrize("shared", [{}, {"assume_network_is_shared": "true"}])
def test_nova_moves_a_vm_whose_network_has_no_interfaces_where_it_says_that_it_is_everywhere(session, shared):
    api = session.xenapi
    here, there = api.host.get_all()
    made = api.network.create({"name_label": "interim", "name_description": "", "other_config": shared})
    vm = api.VM.create(a_vm(name_label="moving"))
    api.VIF.create(a_vif(vm, made))
    api.VM.start_on(vm, here, False, False)
    if shared:
        api.VM.pool_migrate(vm, there, {"live": "true"})
        assert api.VM.get_resident_on(vm) == there
    else:
        told = failure_of(api.VM.pool_migrate, vm, there, {"live": "true"})
        assert told == ["VM_REQUIRES_NETWORK", vm, made]
    api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)
    api.network.destroy(made)
