"""VLANs of the simulator: made on one host or all, refused as XAPI refuses them, gone without a trace."""

import pytest

from tests.xenserver.simulated import failure_of
from xenapi_host.simulator.light import LightPool


@pytest.fixture
def session():
    return LightPool(hosts=2, seed=1).login()


@pytest.fixture
def network(session):
    return session.call("network.create", {"name_label": "tagged", "other_config": {}})


@pytest.fixture
def pif(session):
    return session.call("host.get_management_interface", session.call("host.get_all")[0])


def test_a_vlan_is_an_interface_of_its_own_on_its_network(session, network, pif):
    vlan = session.call("VLAN.create", pif, "7", network)
    untagged = session.call("VLAN.get_untagged_PIF", vlan)
    record = session.call("PIF.get_record", untagged)
    assert (record["VLAN"], record["VLAN_master_of"], record["physical"]) == ("7", vlan, False)
    assert (record["device"], record["MAC"]) == ("eth0", "fe:ff:ff:ff:ff:ff")
    assert session.call("PIF.get_VLAN_slave_of", pif) == [vlan]
    assert session.call("network.get_PIFs", network) == [untagged]
    assert failure_of(session.call, "network.destroy", network) == ["NETWORK_CONTAINS_PIF", untagged]
    session.call("VLAN.destroy", vlan)
    assert session.call("PIF.get_VLAN_slave_of", pif) == []
    assert failure_of(session.call, "PIF.get_record", untagged)[0] == "HANDLE_INVALID"
    session.call("network.destroy", network)


def test_a_vlan_that_cannot_be_is_refused(session, network, pif):
    host, main = session.call("PIF.get_host", pif), session.call("PIF.get_network", pif)
    assert failure_of(session.call, "VLAN.create", pif, "4095", network) == ["VLAN_TAG_INVALID", "4095"]
    assert failure_of(session.call, "VLAN.create", pif, "-1", network) == ["VLAN_TAG_INVALID", "-1"]
    assert failure_of(session.call, "VLAN.create", pif, "7", main) == ["NETWORK_ALREADY_CONNECTED", host, pif]
    untagged = session.call("VLAN.get_untagged_PIF", session.call("VLAN.create", pif, "7", network))
    other = session.call("network.create", {"name_label": "other", "other_config": {}})
    assert failure_of(session.call, "VLAN.create", untagged, "8", other) == ["PIF_IS_VLAN", untagged]
    assert failure_of(session.call, "VLAN.create", pif, "7", other) == ["PIF_VLAN_EXISTS", "eth0"]
    assert failure_of(session.call, "pool.create_VLAN", "eth9", other, "8") == ["INVALID_VALUE", "device", "eth9"]
    assert failure_of(session.call, "PIF.destroy", pif) == ["PIF_IS_PHYSICAL", pif]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_vlan_of_the_pool_is_on_every_host_or_on_none(session, network, pif, by_name):
    how = ("pool.create_VLAN", "eth0") if by_name else ("pool.create_VLAN_from_PIF", pif)
    second = session.call("host.get_management_interface", session.call("host.get_all")[1])
    taken = session.call("VLAN.create", second, "7", network)
    elsewhere = session.call("network.create", {"name_label": "elsewhere", "other_config": {}})
    assert failure_of(session.call, *how, elsewhere, "7") == ["PIF_VLAN_EXISTS", "eth0"]
    assert session.call("VLAN.get_all") == [taken]
    session.call("VLAN.destroy", taken)
    pifs = session.call(*how, elsewhere, "7")
    hosts = [session.call("PIF.get_host", one) for one in pifs]
    assert sorted(hosts) == sorted(session.call("host.get_all"))
    for one in pifs:
        session.call("PIF.destroy", one)
    assert session.call("VLAN.get_all") == []
