"""Actions of ours, for administrators: what XenServer can do with a server and OpenStack has no word for."""

from api_cell.http.actions import ACCEPTED
from api_cell.http.call import Answer, Call
from api_cell.http.servers import asking
from api_cell.service import operators


def set_shares(call: Call) -> Answer:
    operators.set_shares(call.api, asking(call), call.body["celltree-setShares"])
    return ACCEPTED


def take_host_snapshot(call: Call) -> Answer:
    operators.take_host_snapshot(call.api, asking(call), call.body["celltree-createHostSnapshot"]["name"])
    return ACCEPTED


def drop_host_snapshot(call: Call) -> Answer:
    operators.drop_host_snapshot(call.api, asking(call), call.body["celltree-deleteHostSnapshot"]["id"].lower())
    return ACCEPTED


def host_snapshots(call: Call) -> Answer:
    return Answer(body={"host_snapshots": operators.host_snapshots(call.api, asking(call))})
