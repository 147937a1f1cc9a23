"""Class VLAN: a tagged part of a network interface, which is an interface of its own on another network."""

from __future__ import annotations

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.placement import live

_MAC = "fe:ff:ff:ff:ff:ff"  # XAPI gives it to every VLAN's interface
_TAGS = range(4095)


def _refuse(call: Call, tagged: Row, tag: str, network: Row) -> None:
    if not tagged["managed"]:
        raise Failure("PIF_UNMANAGED", tagged.ref)
    for other in network["PIFs"]:
        if call.db.rows[other]["host"] == tagged["host"]:
            raise Failure("NETWORK_ALREADY_CONNECTED", tagged["host"], other)
    if tagged["bond_slave_of"] != NULL:
        raise Failure("CANNOT_ADD_VLAN_TO_BOND_SLAVE", tagged.ref)
    if tagged.number("VLAN") >= 0:
        raise Failure("PIF_IS_VLAN", tagged.ref)
    if int(tag) not in _TAGS:
        raise Failure("VLAN_TAG_INVALID", tag)
    if any(call.db.rows[vlan]["tag"] == tag for vlan in tagged["VLAN_slave_of"]):
        raise Failure("PIF_VLAN_EXISTS", tagged["device"])


def _add(call: Call, tagged: Row, tag: str, network: Row) -> Row:
    """The VLAN and its interface, which is plugged."""
    _refuse(call, tagged, tag, network)
    vlan = call.db.create("VLAN", {"tagged_PIF": tagged.ref, "tag": tag})
    untagged = call.db.create(
        "PIF",
        {
            **{field: tagged[field] for field in ("device", "host", "MTU", "metrics")},
            "network": network.ref,
            "MAC": _MAC,
            "VLAN": tag,
            "VLAN_master_of": vlan.ref,
            "physical": False,
            "currently_attached": True,
            "managed": True,
        },
    )
    call.db.set(vlan, "untagged_PIF", untagged.ref)
    return vlan


def _add_to_all(call: Call, tagged: list[Row], tag: str, network: Row) -> list[str]:
    """The same VLAN on several hosts: on all or on none. Gives the new interfaces."""
    made: list[Row] = []
    try:
        for pif in tagged:
            made.append(_add(call, pif, tag, network))
    except Failure:
        for vlan in made:
            _remove(call, vlan)
        raise
    return [str(vlan["untagged_PIF"]) for vlan in made]


def _remove(call: Call, vlan: Row) -> None:
    untagged = call.db.find("PIF", vlan["untagged_PIF"])
    if untagged is not None and untagged["management"]:
        raise Failure("PIF_IS_MANAGEMENT_INTERFACE", untagged.ref)
    call.db.delete(vlan)
    if untagged is not None:
        call.db.delete(untagged)


@method("VLAN.create")
def create(call: Call, tagged: str, tag: str, network: str) -> str:
    return _add(call, call.row("PIF", tagged), tag, call.row("network", network)).ref


@method("VLAN.destroy")
def destroy(call: Call, ref: str) -> str:
    _remove(call, call.row("VLAN", ref))
    return ""


@method("PIF.create_VLAN")
def create_on_host(call: Call, device: str, network: str, host: str, tag: str) -> str:
    on, here = call.row("network", network), call.row("host", host)
    tagged = [pif for pif in _of_device(call, device) if pif["host"] == here.ref]
    return _add_to_all(call, tagged[:1], tag, on)[0] if tagged else _no_device(device)


@method("PIF.destroy")
def destroy_pif(call: Call, ref: str) -> str:
    """Only a VLAN's interface can go so."""
    pif = call.row("PIF", ref)
    vlan = call.db.find("VLAN", pif["VLAN_master_of"])
    if vlan is None:
        raise Failure("PIF_IS_PHYSICAL", ref)
    _remove(call, vlan)
    return ""


@method("pool.create_VLAN")
def create_on_all(call: Call, device: str, network: str, tag: str) -> list[str]:
    on, tagged = call.row("network", network), _of_device(call, device)
    if not tagged:
        _no_device(device)
    return _add_to_all(call, tagged, tag, on)


@method("pool.create_VLAN_from_PIF")
def create_from_pif(call: Call, pif: str, network: str, tag: str) -> list[str]:
    """On every live host that is on the network of the interface given."""
    base = call.db.get("network", call.row("PIF", pif)["network"])
    tagged = [call.db.rows[ref] for ref in base["PIFs"]]
    alive = [one for one in tagged if live(call.engine, call.db.get("host", one["host"]))]
    return _add_to_all(call, alive, tag, call.row("network", network))


def _of_device(call: Call, device: str) -> list[Row]:
    return [pif for pif in call.db.all("PIF") if pif["device"] == device and pif.number("VLAN") < 0]


def _no_device(device: str) -> str:
    raise Failure("INVALID_VALUE", "device", device)
