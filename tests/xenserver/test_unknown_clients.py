"""What programs that we have never seen may ask: every object by every getter in both encodings, typed as the data
model says, and the sequences of well-known clients."""

import http.client
import json
import re
from urllib.parse import urlsplit
from xmlrpc.client import DateTime, ServerProxy

import pytest

from tests.xenserver.simulated import a_disk, a_pool, a_vbd, a_vif, a_vm, logged_in
from xenapi_host.simulator.model import model

MIB = 2**20
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
