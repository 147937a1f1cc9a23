"""A server's shares of its host, changed while it lives: the weight of its processors, the class of its disks. Pure.

They become part of its flavor here, so what makes its VM anew keeps them; another flavor brings its own.
"""

from collections.abc import Mapping
from dataclasses import replace

from cells.codec import unpack_record
from cells.errors import Permanent, Refusal
from cells.messages import RefusalCode, SetShares
from cells.model import Flavor
from cells.names import Instant
from cells.ports import View
from compute_cell.answers import Here
from compute_cell.command import Begun, Done, refuse_unsettled
from compute_cell.rows import InstanceRow
from compute_cell.tasks import SharesTask
from xenapi_host import guests

SET = "server.set_shares"


def begin(here: Here, view: View, instance: InstanceRow, body: SetShares, request: str) -> Begun:
    refuse_unsettled(instance)
    flavor = _with(instance.state.flavor, body.shares)
    try:
        task = SharesTask(pool=instance.pool, vcpus=guests.vcpu_params(flavor), disks=guests.disk_shares(flavor))
    except Permanent as wrong:
        raise Refusal(RefusalCode.UNSUPPORTED, str(wrong)) from None
    return Begun(job=here.job(SET, instance, task, request), task_state="", instance=instance)


def given(view: View, instance: InstanceRow, now: Instant) -> Done:
    assert instance.command is not None
    body: SetShares = unpack_record(instance.command.data).body
    flavor = _with(instance.state.flavor, body.shares)
    spec = replace(instance.spec, flavor=flavor)
    return replace(instance, spec=spec, state=replace(instance.state, flavor=flavor)), ()


def _with(flavor: Flavor, shares: Mapping[str, str]) -> Flavor:
    others = {key: value for key, value in flavor.extra_specs.items() if key not in guests.SHARES}
    known = {key: value for key, value in shares.items() if key in guests.SHARES}
    return replace(flavor, extra_specs={**others, **known})
