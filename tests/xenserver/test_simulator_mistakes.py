"""What a client gets wrong: told in XAPI's words, never by a bug of ours, never by silence."""

import random
from xmlrpc.client import Binary, DateTime

import pytest

from tests.xenserver.simulated import MIB, a_disk, a_vbd, a_vif, a_vm, failure_of
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.model import model

DEAD = "OpaqueRef:deaddead-0000-4000-8000-000000000001"
NULL = "OpaqueRef:NULL"


@pytest.fixture
def session():
    return LightPool(seed=1).login()


@pytest.fixture
def host(session):
    return session.call("host.get_all")[0]


@pytest.fixture
def sr(session, host):
    return session.call("PBD.get_SR", session.call("host.get_PBDs", host)[0])


@pytest.mark.parametrize(
    ("method", "value", "told"),
    [
        ("VM.set_start_delay", True, "Failure(\"Expected int64, got 'B(true)'\")"),
        ("VM.set_start_delay", 2.5, "Failure(\"Expected int64, got 'F(2.5)'\")"),
        ("VM.set_start_delay", "1 ", 'Failure("Int64.of_string")'),
        ("VM.set_start_delay", "9223372036854775808", 'Failure("Int64.of_string")'),
        ("VM.set_start_delay", 2**63, 'Failure("Int64.of_string")'),
        ("VM.set_HVM_shadow_multiplier", None, "Failure(\"Expected float, got 'N'\")"),
        ("VM.set_HVM_shadow_multiplier", "much", 'Failure("float_of_string")'),
        ("VM.set_name_label", Binary(b"raw"), "Failure(\"Expected string, got 'B64(raw)'\")"),
        ("VM.set_name_label", {"a": "b", "c": [1, 2.0]}, "Failure(\"Expected string, got '{a:S(b);c:[I(1);F(2)]}'\")"),
    ],
)
def test_a_wrong_type_is_told_as_xapis_marshaller_tells_it(session, method, value, told):
    vm = session.call("VM.create", a_vm())
    assert failure_of(session.call, method, vm, value) == ["INTERNAL_ERROR", told]


@pytest.mark.parametrize(("text", "number"), [("007", "7"), ("0x10", "16"), ("+1_000", "1000"), ("-0b11", "-3")])
def test_whole_numbers_are_read_as_ocaml_reads_them(session, text, number):
    vm = session.call("VM.create", a_vm())
    session.call("VM.set_start_delay", vm, text)
    assert session.call("VM.get_start_delay", vm) == number


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"VCPUs_max": "0", "VCPUs_at_startup": "0"}, ["INVALID_VALUE", "VCPUs_max", "0"]),
        ({"VCPUs_at_startup": "0"}, ["INVALID_VALUE", "VCPUs-at-startup", "0"]),
        (
            {"VCPUs_at_startup": "3"},
            ["VALUE_NOT_SUPPORTED", "VCPUs-at-startup", "3", "value greater than VCPUs-max"],
        ),
        ({"memory_dynamic_max": "1"}, ["MEMORY_CONSTRAINT_VIOLATION"]),
        ({"HVM_shadow_multiplier": 0.5}, ["INVALID_VALUE", "HVM_shadow_multiplier", "0.5"]),
        (
            {"actions_after_crash": "coredump_and_destroy"},
            [
                "VALUE_NOT_SUPPORTED",
                "VM.actions_after_crash",
                "coredump_and_destroy",
                "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain",
            ],
        ),
        ({"VCPUs_max": "9"}, ["HOST_NOT_ENOUGH_PCPUS", "9", "8"]),
    ],
)
def test_a_vm_that_no_host_can_run_is_made_but_not_started(session, host, fields, told):
    vm = session.call("VM.create", a_vm(**fields))
    assert failure_of(session.call, "VM.start_on", vm, host, False, False) == told
    assert failure_of(session.call, "VM.start", vm, False, False) == ["NO_HOSTS_AVAILABLE"]
    assert session.call("VM.get_power_state", vm) == "Halted"


def test_a_vm_may_have_more_processors_than_its_host_when_it_says_so(session, host):
    vm = session.call("VM.create", a_vm(VCPUs_max="9", platform={"vcpu-unrestricted": "true"}))
    session.call("VM.start_on", vm, host, False, False)


def test_guests_that_can_be_squeezed_share_a_hosts_memory(session, host):
    """A start needs what a guest must have at least; what is unused now is another figure."""
    most, least = str(12 * 1024 * MIB), str(1024 * MIB)
    squeezable = a_vm(memory_static_max=most, memory_dynamic_max=most, memory_dynamic_min=least)
    metrics = session.call("host.get_metrics", host)
    before = int(session.call("host.compute_free_memory", host))
    assert int(session.call("host_metrics.get_record", metrics)["memory_free"]) == before
    for _ in range(2):
        session.call("VM.start_on", session.call("VM.create", squeezable), host, False, False)
    after = int(session.call("host.compute_free_memory", host))
    assert 2 * 1024 * MIB < before - after < 3 * 1024 * MIB
    assert session.call("host_metrics.get_record", metrics)["memory_free"] == "0"


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_a_shadow_multiplier_below_one_is_refused(session, value):
    vm = session.call("VM.create", a_vm())
    assert failure_of(session.call, "VM.set_HVM_shadow_multiplier", vm, value)[:2] == ["INVALID_VALUE", "multiplier"]
    assert session.call("VM.get_HVM_shadow_multiplier", vm) == 1.0


def test_a_base_copy_is_not_for_clients(session, sr):
    disk = session.call("VDI.create", a_disk(sr))
    size = session.call("VDI.get_virtual_size", disk)
    session.call("VDI.snapshot", disk)
    base = session.call("VDI.get_by_uuid", session.call("VDI.get_sm_config", disk)["vhd-parent"])
    told = ["VDI_NOT_MANAGED", base]
    assert failure_of(session.call, "VDI.destroy", base) == told
    assert failure_of(session.call, "VDI.snapshot", base) == told
    assert failure_of(session.call, "VDI.clone", base) == told
    assert failure_of(session.call, "VDI.resize", base, size) == told
    assert failure_of(session.call, "VDI.copy", base, sr) == told
    vm = session.call("VM.create", a_vm())
    vbd = session.call("VBD.create", a_vbd(vm, base))
    assert failure_of(session.call, "VM.start", vm, False, False) == ["VDI_NOT_MANAGED", vbd]


def test_a_file_has_one_object_and_that_its_name(session, sr):
    disk = session.call("VDI.create", a_disk(sr))
    uuid, other = session.call("VDI.get_uuid", disk), "0c9bb4a5-3f2b-4d68-8b5c-1d4b6e6a4d11"
    facts = ("", "", sr, "user", False, False, {})
    assert failure_of(session.call, "VDI.introduce", other, *facts, uuid)[0] == "LOCATION_NOT_UNIQUE"
    named = session.call("VDI.get_name_label", disk)
    assert session.call("VDI.introduce", uuid, "", "told again", *facts[2:6], {"a": "b"}, uuid) == disk
    record = session.call("VDI.get_record", disk)
    assert (record["name_label"], record["name_description"]) == (named, "told again")
    assert record["other_config"] == {"a": "b"}
    session.call("VDI.forget", disk)
    assert failure_of(session.call, "VDI.introduce", other, *facts, uuid)[0] == "SR_BACKEND_FAILURE_46"
    assert session.call("VDI.get_uuid", session.call("VDI.introduce", uuid, *facts, uuid)) == uuid


def test_a_vm_whose_memory_is_destroyed_has_none(session):
    vm = session.call("VM.create", a_vm())
    session.call("VM.start", vm, False, False)
    session.call("VM.suspend", vm)
    session.call("VDI.destroy", session.call("VM.get_suspend_VDI", vm))
    assert session.call("VM.get_suspend_VDI", vm) == NULL
    session.call("VM.hard_shutdown", vm)
    assert session.call("VM.get_power_state", vm) == "Halted"


def test_every_operation_may_be_asked_about(session):
    vm = session.call("VM.create", a_vm())
    assert failure_of(session.call, "VM.assert_operation_valid", vm, "csvm") == [
        "VM_BAD_POWER_STATE",
        vm,
        "suspended",
        "halted",
    ]
    assert failure_of(session.call, "VM.assert_operation_valid", vm, "query_services") == ["NOT_SYSTEM_DOMAIN", vm]
    for operation in model().enums["vm_operations"]:
        try:
            session.call("VM.assert_operation_valid", vm, operation)
        except Failure as refused:
            assert refused.details[1:2] in ([vm], []), operation


def test_a_subjects_roles_are_added_and_removed_once(session):
    subject = session.call("subject.create", {"subject_identifier": "u", "other_config": {}})
    (role,) = session.call("role.get_by_name_label", "read-only")
    before = session.call("subject.get_roles", subject)
    assert failure_of(session.call, "subject.add_to_roles", subject, DEAD) == ["ROLE_NOT_FOUND"]
    session.call("subject.add_to_roles", subject, role)
    assert failure_of(session.call, "subject.add_to_roles", subject, role) == ["ROLE_ALREADY_EXISTS"]
    assert sorted(session.call("subject.get_roles", subject)) == sorted([*before, role])
    session.call("subject.remove_from_roles", subject, role)
    assert failure_of(session.call, "subject.remove_from_roles", subject, role) == ["ROLE_NOT_FOUND"]


def test_absurd_numbers_are_answered_at_once(session):
    vm = session.call("VM.create", a_vm())
    most = int(session.call("VM.maximise_memory", vm, str(2**63 - 1), True))
    assert 0.98 * 2**63 < most < 2**63
    assert session.call("VM.maximise_memory", vm, "-1", False) == "0"
    token = session.call("event.from", ["*"], "", 0.0)["token"]
    for timeout in (float("nan"), -1.0, float("-inf")):
        assert session.call("event.from", ["*"], token, timeout)["events"] == []


# -- calls drawn at random --

# They wait for what never comes, end the session, or end the host.
_LEFT_OUT = {"event.next", "session.logout", "session.local_logout", "session.change_password"}
_LEFT_OUT |= {"host.reboot", "host.shutdown", "pool.emergency_transition_to_master", "pool.designate_new_master"}
_TEXTS = ["", "x", "0", "-1", "99999999999999999999", "a/b/c", "*", "\u00e9\u0000", "xvda", "autodetect", "true", "VM"]
_TEXTS += [DEAD, f"vm/{DEAD}", 'field "uuid" = "x"', "not false", "((", "127.0.0.1", "0x10", "vm-data/x", "y" * 300]
_NUMBERS = ["0", "1", "-1", "4194304", str(2**63 - 1), str(-(2**63)), 7, 2**40, "536870912", "8"]
_TIMES = [DateTime("20200101T00:00:00Z"), DateTime("99991231T23:59:59Z"), "19700101T00:00:00Z"]
_FLOATS = [0.0, 1.0, -1.0, 1e308, "nan", float("inf"), 3]


class Chance:
    """Parameters that are mostly of the right kind and often of the right object."""

    def __init__(self, pool, session, seed):
        self.pool = pool
        self.session = session
        self.draw = random.Random(seed)

    def parameter(self, kind):
        if kind.endswith(" set"):
            return [self.parameter(kind.removesuffix(" set")) for _ in range(self.draw.randrange(3))]
        if kind.endswith(" map"):
            key, _, value = kind.removesuffix(" map").strip("()").partition(" -> ")
            return {str(self.parameter(key)): self.parameter(value) for _ in range(self.draw.randrange(3))}
        if kind.endswith(" record"):
            return self.record(kind.removesuffix(" record"))
        if kind.endswith(" ref"):
            return self.reference(kind.removesuffix(" ref"))
        if kind.startswith("enum "):
            return self.draw.choice([*model().enums[kind.removeprefix("enum ")], "nothing"])
        plain = {"int": _NUMBERS, "float": _FLOATS, "bool": [True, False], "datetime": _TIMES}
        return self.draw.choice(plain.get(kind, _TEXTS))

    def reference(self, class_name):
        if self.draw.random() < 0.2:
            class_name = self.draw.choice(["VM", "VDI", "host", "SR", "VBD"])
        refs = list(self.pool.engine.db.tables.get(class_name, ()))
        return self.draw.choice([DEAD, NULL, "", *refs * 9])

    def record(self, class_name):
        known = model().classes.get(class_name)
        made = {
            "VM": lambda: a_vm(),
            "VDI": lambda: a_disk(self.reference("SR")),
            "VBD": lambda: a_vbd(self.reference("VM"), self.reference("VDI")),
            "VIF": lambda: a_vif(self.reference("VM"), self.reference("network")),
        }.get(class_name, dict)()
        for name, field in known.fields.items() if known is not None else ():
            if self.draw.random() < (0.15 if made else 0.95):
                made[name] = self.parameter(field.kind)
        return made


def _a_house():
    pool = LightPool(hosts=2, seed=1)
    session = pool.login()
    host, network = session.call("host.get_all")[0], session.call("network.get_all")[0]
    sr = session.call("PBD.get_SR", session.call("host.get_PBDs", host)[0])
    for number in range(3):
        vm = session.call("VM.create", a_vm())
        session.call("VBD.create", a_vbd(vm, session.call("VDI.create", a_disk(sr))))
        session.call("VBD.create", a_vbd(vm, NULL, userdevice="3", type="CD", mode="RO", empty=True))
        session.call("VIF.create", a_vif(vm, network))
        if number:
            session.call("VM.start_on", vm, host, False, False)
            session.call("VM.snapshot", vm, "kept")
    return pool, session


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_asked_is_answered_or_refused(seed):
    methods = [
        (f"{class_name}.{message.name}", message)
        for class_name, known in model().classes.items()
        for message in known.messages.values()
        if f"{class_name}.{message.name}" not in _LEFT_OUT and not message.name.startswith("get_")
    ]
    answered = 0
    for round_number in range(4):
        chance = Chance(*_a_house(), seed * 100 + round_number)
        for name, message in chance.draw.choices(methods, k=600):
            given = [chance.parameter(parameter.kind) for parameter in message.parameters]
            if name == "event.from":
                given[2] = 0.0
            try:
                chance.session.call(name, *given)
                answered += 1
            except Failure as refused:
                assert all(type(detail) is str for detail in refused.details), (name, given)
    assert answered > 100
