"""Every method of the data model answers: with behaviour, or with an honest XenAPI error."""

from pathlib import Path
from xmlrpc.client import DateTime

import pytest

import xenapi_host.simulator
from xenapi_host.simulator import behaviours
from xenapi_host.simulator.dispatch import BEHAVIOURS
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.methods import kind_of, listing
from xenapi_host.simulator.model import model

DANGLING = "OpaqueRef:deaddead-0000-4000-8000-000000000001"
# They wait, or end the session.
OTHERS_BREAK_IT = {"event.next", "event.from", "session.logout", "session.local_logout"}


def a_value(kind):
    if kind.endswith(" set"):
        return []
    if kind.endswith(" map"):
        return {}
    if kind.endswith(" record"):
        return {}
    if kind.endswith(" ref"):
        return DANGLING
    if kind.startswith("enum "):
        return model().enums[kind.removeprefix("enum ")][0]
    return {"int": "1", "float": 1.0, "bool": False, "datetime": DateTime("20200101T00:00:00Z")}.get(kind, "x")


def every_method():
    for class_name, known in model().classes.items():
        for message in known.messages.values():
            if f"{class_name}.{message.name}" not in OTHERS_BREAK_IT:
                yield class_name, message


@pytest.mark.parametrize("class_name", sorted(model().classes))
def test_every_method_answers_nonsense_with_a_xenapi_failure_or_success(class_name):
    session = LightPool(seed=1).login()
    for message in model().classes[class_name].messages.values():
        name = f"{class_name}.{message.name}"
        if name in OTHERS_BREAK_IT or message.sessionless:
            continue
        try:
            session.call(name, *[a_value(p.kind) for p in message.parameters])
        except Failure as failure:
            assert all(isinstance(detail, str) for detail in failure.details), name


def test_no_method_without_behaviour_pretends_success():
    session = LightPool(seed=1).login()
    before = session.call("event.from", ["*"], "", 0.0)["token"]
    for class_name, message in every_method():
        name = f"{class_name}.{message.name}"
        if kind_of(class_name, message) != "absent":
            continue
        with pytest.raises(Failure):
            session.call(name, *[a_value(p.kind) for p in message.parameters])
    assert session.call("event.from", ["*"], before, 0.0)["events"] == []


def test_behaviours_are_methods_that_xapi_has():
    behaviours.load()
    session = LightPool(seed=1).login()
    unknown = []
    for name in BEHAVIOURS:
        try:
            session.call(name)
        except Failure as failure:
            if failure.details[0] == "MESSAGE_METHOD_UNKNOWN":
                unknown.append(name)
    assert unknown == []


def test_the_published_list_of_methods_is_current():
    page = Path(xenapi_host.simulator.__file__).with_name("METHODS.md").read_text(encoding="utf-8")
    assert page == listing(), "run python -m xenapi_host.simulator.methods"
