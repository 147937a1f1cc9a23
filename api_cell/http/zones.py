"""/os-availability-zone: the zones that hosts below this cell are in, from the newest cell records."""

from api_cell.http.call import Answer, Call
from api_cell.service.api import Api
from cells import codec
from cells.model import CellRecord
from cells.rows import RosterRow


def zones_of(api: Api) -> list[str]:
    """The default zone first, then the others by name."""
    rows = api.read(lambda unit: unit.all(RosterRow))
    found = set()
    for row in rows:
        record: CellRecord = codec.unpack(CellRecord, row.payload)
        if record.capacity is not None:
            found |= {known.zone for known in record.capacity.classes if known.zone}
    return [api.settings.default_zone, *sorted(found - {api.settings.default_zone})]


def details(call: Call) -> Answer:
    """For administrators. Hosts belong to the leaves, so a zone is shown without them."""
    zones = [{"zoneName": zone, "zoneState": {"available": True}, "hosts": {}} for zone in zones_of(call.api)]
    return Answer(body={"availabilityZoneInfo": zones})


def show(call: Call) -> Answer:
    zones = [{"zoneName": zone, "zoneState": {"available": True}, "hosts": None} for zone in zones_of(call.api)]
    return Answer(body={"availabilityZoneInfo": zones})
