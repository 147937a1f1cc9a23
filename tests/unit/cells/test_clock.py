"""A clock that jumps far does not stop a cell, be it that of all cells or of one alone: what was to come soon does not
wait for the old time, and what is past its deadline by the clock of who shall do it is refused with that reason."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_cell.role import ApiRole
from cells.certificates import Authority, check
from cells.errors import BadInput
from cells.identity import RootKey, Trust, new_key
from cells.names import SECOND, Instant, is_due
from cells.rows import LeaseRow
from tests.support.embedded import START, ManualClock, SeededBytes, Tree, make_tree
from tests.support.invariants import validate, validate_quiet

HOUR = 3600
JUMPS = pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["an hour back", "an hour ahead"])


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


class OwnClock:
    """A cell's clock that is `ahead` of all others by so many seconds."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.ahead = 0

    def __call__(self) -> Instant:
        return self._clock() + self.ahead * SECOND


def give_own_clock(tree: Tree, cell: str) -> OwnClock:
    own, common = OwnClock(tree.clock), tree.house.clock
    tree.house.clock = own
    tree.restart(cell)
    tree.house.clock = common
    tree.run(6)
    return own


def build(tree: Tree, ahead: int = 0) -> bytes:
    """A server asked of east while its clock is so far ahead: deadlines are by its time."""
    tree.clock.advance(ahead)
    server = tree.build("east")
    tree.clock.advance(-ahead)
    return server


def heard(tree: Tree) -> int:
    """The newest that east has from the leaf."""
    role: ApiRole = tree["east"].role  # type: ignore[assignment]
    return role.neighbourhood.roster["leaf"].record.generation.sequence


def test_what_comes_every_so_often_is_due_in_its_time_or_when_it_is_further_off_than_it_can_be() -> None:
    assert [is_due(at, 10, 100) for at in (99, 100, 101, 110, 111)] == [True, True, False, False, True]


# --- all cells ---


@JUMPS
def test_cells_whose_clocks_jump_an_hour_go_on_at_once(tree: Tree, jump: int) -> None:
    tree.clock.advance(jump)
    before = heard(tree)
    server = tree.build("east")
    tree.run(4)
    assert tree.server("east", server).status == "ACTIVE"
    assert heard(tree) >= before + 3  # a tick each second
    tree.run(20)
    validate_quiet(tree)


def test_record_that_waits_to_be_sent_again_does_not_wait_for_the_old_time(tree: Tree) -> None:
    tree.network.cut("east", "leaf")
    server = tree.build("east")
    tree.run(5)
    tree.clock.advance(-HOUR)
    tree.run(0.5)
    tree.network.heal()
    tree.run(15)
    assert tree.server("east", server).status == "ACTIVE"


def test_build_whose_deadline_the_clock_has_jumped_over_ends_with_that_reason(tree: Tree) -> None:
    tree.network.cut("east", "leaf")
    server = tree.build("east")
    tree.run(5)
    tree.clock.advance(HOUR)
    tree.run(0.5)
    tree.network.heal()
    tree.run(30)
    row = tree.server("east", server)
    assert (row.status, "deadline" in row.fault) == ("ERROR", True)
    validate_quiet(tree)


@JUMPS
def test_shards_of_a_daemon_that_died_before_the_clock_jumped_are_taken_over(tree: Tree, jump: int) -> None:
    tree.open("leaf", "b")
    tree.run(10)
    tree.crash("leaf")
    tree.clock.advance(jump)
    tree.run(30)
    assert {lease.holder for lease in tree.rows("leaf", LeaseRow)} == {"b"}
    assert all(lease.expires < tree.clock.now + 60 * SECOND for lease in tree.rows("leaf", LeaseRow))


# --- one cell alone ---


@JUMPS
@pytest.mark.parametrize("cell", ["east", "leaf"])
def test_cell_whose_clock_alone_is_wrong_loses_nothing_and_is_as_before_when_it_is_right(
    tree: Tree, cell: str, jump: int
) -> None:
    own = give_own_clock(tree, cell)
    old = tree.build("east", "old")
    tree.run(4)
    own.ahead = jump
    server = build(tree, ahead=jump if cell == "east" else 0)
    tree.run(20)
    validate(tree)
    row = tree.server("east", server)
    if (cell, jump) in (("east", -HOUR), ("leaf", HOUR)):  # ten minutes from then are over, as the leaf takes it
        assert (row.status, "deadline has passed" in row.fault) == ("ERROR", True)
    else:
        assert row.status == "ACTIVE"
    own.ahead = 0
    tree.run(20)
    again = tree.build("east", "again")
    tree.run(10)
    assert [tree.server("east", each).status for each in (old, again)] == ["ACTIVE", "ACTIVE"]
    validate_quiet(tree)


# --- certificates ---


@JUMPS
def test_new_certificate_counts_where_the_clock_is_an_hour_off(tmp_path: Path, jump: int) -> None:
    check_at = written(tmp_path, days=2)
    check_at(START + jump * SECOND)


def test_certificate_in_its_last_hour_counts_no_longer_where_the_clock_is_ahead(tmp_path: Path) -> None:
    check_at = written(tmp_path, days=1)
    now = START + (24 * HOUR - HOUR // 2) * SECOND
    check_at(now)
    with pytest.raises(BadInput, match="has expired on"):
        check_at(now + HOUR * SECOND)


def written(folder: Path, days: int) -> Callable[[Instant], None]:
    """A certificate of START, to be checked at some time."""
    certificate, key = Authority.create("lab", START).issue("east", START, days=days)
    (folder / "east.pem").write_bytes(certificate)
    (folder / "east.key").write_bytes(key)
    return lambda now: check("broker", now, certificate=str(folder / "east.pem"), key=str(folder / "east.key"))


@JUMPS
def test_cells_own_certificate_is_signed_at_any_time_and_has_none_to_expire(jump: int) -> None:
    root = RootKey(SeededBytes("root")(32))
    _, public = new_key(SeededBytes("east"))
    signed = root.certify("east", bytes(16), "api", public, START + jump * SECOND)
    assert Trust(root.public).certificate(signed).issued == START + jump * SECOND
