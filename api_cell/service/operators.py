"""What an administrator does to a server that OpenStack has no word for: its shares of its host, snapshots that stay
there."""

import json
from typing import Any

from api_cell.errors import Invalid
from api_cell.service.actions import Asking, may, open_wish, plain, wish
from api_cell.service.api import Api
from api_cell.service.questions import ask
from api_cell.status import flavor_of
from cells.messages import DropHostSnapshot, Question, SetShares, TakeHostSnapshot
from cells.ports import Unit

_MOST_WEIGHT = 65535


def set_shares(api: Api, asking: Asking, shares: dict[str, str]) -> None:
    """Give a server these shares of its host (quota:... of a flavor's extra specs) in place of its flavor's."""
    weight, cap = shares.get("quota:vcpu_weight", "1"), shares.get("quota:vcpu_cap", "0")
    if int(weight) > _MOST_WEIGHT:
        raise Invalid(f"celltree-setShares: quota:vcpu_weight {weight} is over {_MOST_WEIGHT}")

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, "server.set_shares")
        most = 100 * flavor_of(row).vcpus
        if int(cap) > most:
            raise Invalid(f"celltree-setShares: quota:vcpu_cap {cap} is over {most}, 100 for each of its processors")
        open_wish(api, unit, asking, line, row, "celltree-setShares", SetShares(shares=shares))

    wish(api, act)


def take_host_snapshot(api: Api, asking: Asking, name: str) -> None:
    """Keep the server's disks as they are now, on its host."""
    plain(api, asking, "celltree-createHostSnapshot", TakeHostSnapshot(name=name))


def drop_host_snapshot(api: Api, asking: Asking, snapshot: str) -> None:
    """Remove one of these."""
    plain(api, asking, "celltree-deleteHostSnapshot", DropHostSnapshot(snapshot=snapshot))


def host_snapshots(api: Api, asking: Asking) -> list[dict[str, Any]]:
    """Those there are."""
    found: list[dict[str, Any]] = json.loads(ask(api, asking, Question.HOST_SNAPSHOTS))
    return found
