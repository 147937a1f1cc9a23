"""Keys that change under traffic, and certificates that count no longer: known everywhere soon, refused, parked."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cells.codec import pack_bundle, pack_record
from cells.config import keys
from cells.errors import BadInput
from cells.identity import Keys, Trust, Withdrawn, fingerprint, new_key, seal
from cells.messages import CertificatesWithdrawn, StopServer
from cells.names import NEVER, Instant
from cells.record import Hop, Record
from cells.rows import DaemonRow, ParkedRow, RosterRow, SettingRow
from cells.withdrawing import WITHDRAWN
from tests.support.embedded import SeededBytes, Tree, make_tree
from tests.support.invariants import validate_quiet


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "dfw": ("east",), "leaf": ("dfw",)})
    yield tree
    tree.close()


def renewed(tree: Tree, name: str, seed: str = "new") -> tuple[bytes, bytes]:
    """A new key of a cell and its certificate."""
    says = tree[name].identity.says
    private, public = new_key(SeededBytes(seed))
    return private, tree.root.certify(name, says.uuid, says.role, public, tree.clock())


def withdraw(tree: Tree, at: str, name: str, before: Instant, known: Withdrawn | None = None) -> bytes:
    """Put a cell's certificates on the list, in the database of one cell only."""
    wire = tree.root.withdraw(known or Withdrawn(), {name: before}, tree.clock())
    with tree.stores[at].inner.unit() as unit:
        unit.save(SettingRow(name=WITHDRAWN, value=wire.hex()))
    return wire


def test_key_is_renewed_under_traffic_and_the_old_one_refused_when_it_is_withdrawn(tree: Tree) -> None:
    old = {name: tree[name].identity.packet("leaf", 1, NEVER, (), 0) for name in ("east", "leaf")}
    old_key = tree["leaf"].config.key.split()[0]
    servers = []
    for name in ("east", "leaf"):
        servers += [tree.build("east", f"before-{name}")]
        tree["leaf"].node.step()
        private, certificate = renewed(tree, name, name)
        tree[name].identity.renew(Keys(seed=private, former=(keys(tree[name].config).seed,)), certificate)
        servers += [tree.build("east", f"after-{name}")]
    tree.run(10)
    assert all(tree.instance("leaf", server).state.vm_state == "active" for server in servers)
    assert tree.row("east", RosterRow, "leaf").certificate == tree["leaf"].identity.certificate
    assert {row.signer for row in tree.rows("leaf", DaemonRow)} == {fingerprint(tree["leaf"].identity.says.key)}
    assert not tree.rows("leaf", ParkedRow) and not tree.rows("east", ParkedRow)
    # What was sealed and kept for the former key still opens.
    assert tree["leaf"].identity.unseal(seal(b"secret", public_of(old_key))) == b"secret"
    validate_quiet(tree)

    withdraw(tree, "leaf", "east", tree["east"].identity.says.issued)
    tree.run(2)
    for packet, ok in ((old["east"], False), (tree["east"].identity.packet("leaf", 2, NEVER, (), 0), True)):
        try:
            tree["leaf"].identity.trust.packet(packet)
            assert ok
        except BadInput as error:
            assert not ok and "was withdrawn" in str(error)
    more = tree.build("east", "last")
    tree.run(10)
    assert tree.instance("leaf", more).state.vm_state == "active"


def public_of(seed: str) -> bytes:
    """The public key of a private one."""
    return new_key(lambda _: bytes.fromhex(seed))[1]


def test_list_reaches_every_cell_from_any_and_is_there_after_a_restart(tree: Tree) -> None:
    wire = withdraw(tree, "leaf", "gone", 5)
    tree.run(8)
    for name in ("east", "dfw", "leaf"):
        assert tree[name].identity.trust.withdrawn.before == {"gone": 5}
        assert tree.row(name, SettingRow, WITHDRAWN).value == wire.hex()
    newer = withdraw(tree, "east", "gone-too", 7, tree["east"].identity.trust.withdrawn)
    tree.run(8)
    tree.restart("dfw")
    assert tree["dfw"].identity.trust.withdrawn.before == {"gone": 5, "gone-too": 7}
    assert tree.row("leaf", SettingRow, WITHDRAWN).value == newer.hex()


def test_removed_cells_messages_are_parked_and_have_no_effect(tree: Tree) -> None:
    server = tree.build("east", "vm")
    tree.run(10)
    withdraw(tree, "leaf", "east", tree.clock() + 1)
    tree.run(2)
    stop = Record(id=tree.house.new_id(), body=StopServer(), origin="east", destination="leaf", server=server, number=2)
    packet = tree["east"].identity.packet("leaf", 9, NEVER, (pack_record(stop),), tree.clock())
    relayed = replace(packet, trail=(*packet.trail, Hop(cell="dfw", at=tree.clock())))
    tree.network.exchange("leaf").publish(pack_bundle([relayed]), "dfw")
    tree.settle()
    reasons = {row.reason for row in tree.rows("leaf", ParkedRow)}
    assert any("'east' was withdrawn" in reason for reason in reasons)
    assert tree.instance("leaf", server).state.vm_state == "active"


def test_list_that_the_root_has_not_signed_changes_nothing(tree: Tree) -> None:
    forger = make_tree({"east": (), "leaf": ("east",)}, seed="forger")
    wire = forger.root.withdraw(Withdrawn(), {"leaf": NEVER - 1}, tree.clock())
    forger.close()
    body = CertificatesWithdrawn(number=tree.clock(), signed=wire)
    record = Record(id=tree.house.new_id(), body=body, origin="dfw", destination="leaf")
    packet = tree["dfw"].identity.packet("leaf", 3, NEVER, (pack_record(record),), tree.clock())
    tree.network.exchange("leaf").publish(pack_bundle([packet]), "dfw")
    tree.run(3)
    assert tree["leaf"].identity.trust.withdrawn == Withdrawn()
    assert not [row for row in tree.rows("leaf", SettingRow) if row.name == WITHDRAWN]


def test_older_list_never_replaces_a_newer_one(tree: Tree) -> None:
    trust = Trust(tree.root.public)
    first = tree.root.withdraw(Withdrawn(), {"a": 5}, 100)
    second = tree.root.withdraw(trust.read_withdrawn(first), {"a": 3, "b": 6}, 90)
    for wire in (second, first):
        trust.take_withdrawn(trust.read_withdrawn(wire))
    assert (trust.withdrawn.number, dict(trust.withdrawn.before)) == (101, {"a": 5, "b": 6})


def test_identity_takes_no_key_of_another_cell(tree: Tree) -> None:
    private, certificate = renewed(tree, "dfw")
    who = tree["leaf"].identity
    before = who.says
    with pytest.raises(BadInput, match="of another cell"):
        who.renew(Keys(seed=private), certificate)
    with pytest.raises(BadInput, match="does not belong"):
        who.renew(Keys(seed=bytes(32)), renewed(tree, "leaf")[1])
    assert who.says == before
