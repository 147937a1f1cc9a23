"""Whatever a guest's agent answers: the driver takes it or says in a few words that it could not be done, and no secret
of the server goes where the answer went."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cells.errors import CelltreeError
from tests.support.xen_hosts import SERVER, House, KeptJournal
from xenapi_host.driver import agent

FUNCTIONS = ("agent_version", "key_init", "password", "inject_file", "reset_network", "agent_update", "kms_activate")
SECRET = "hunter2-of-the-tenant"
quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
codes = st.sampled_from(["0", "D0", "404", "500", "", "-1"]) | st.text(max_size=8)
messages = (
    st.text(max_size=40) | st.integers().map(str) | st.sampled_from(["9" * 5000, "x" * 300_000, "\0", "\ud800", "1\n"])
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(st.text(max_size=3))
answers = st.fixed_dictionaries(
    {"outcome": st.just("answered") | st.text(max_size=8) | values},
    optional={"returncode": codes | values, "message": messages | values},
)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    house = House()
    house.built()
    with closing(house.session):
        yield house


@quick
@given(said=st.dictionaries(st.sampled_from(FUNCTIONS), answers | values, min_size=1))
def test_any_answer_of_an_agent_is_taken_or_refused_in_words(house: House, said: dict[str, object]) -> None:
    for name in FUNCTIONS:
        right = {"outcome": "answered", "returncode": "D0" if name == "key_init" else "0", "message": "12345"}
        text = json.dumps(said.get(name, right))
        house.pool.twin(agent.PLUGIN, name, lambda call, host, args, text=text: text)
    wishes = agent.Wishes(password=SECRET, files={"/etc/motd": b"hello"})
    asked = (
        lambda: agent.agent_version(house.session, SERVER),
        lambda: agent.set_password(house.session, SERVER, SECRET),
        lambda: agent.reset_network(house.session, SERVER),
        lambda: agent.update_agent(house.session, SERVER, "http://127.0.0.1:9/agent", "0" * 32),
        lambda: agent.activate_system(house.session, SERVER, "x"),
        lambda: agent.first_boot(house.session, SERVER, wishes, KeptJournal()),
    )
    for ask in asked:
        try:
            told = ask() or ""
        except CelltreeError as refused:
            told = str(refused)
            assert 0 < len(told) < 300
        assert SECRET not in told
