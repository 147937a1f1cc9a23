"""Health, readiness and metrics. Health: the process answers. Readiness: its database does too."""

from api_cell.http.call import Answer, Call
from api_cell.http.metrics import MEDIA
from cells.errors import CelltreeError
from cells.rows import SettingRow

PLAIN = "text/plain; charset=utf-8"


def health(_: Call) -> Answer:
    return Answer(body=b"ok\n", media=PLAIN)


def ready(call: Call) -> Answer:
    try:
        call.api.read(lambda unit: unit.get(SettingRow, "state"))
    except CelltreeError as error:
        return Answer(code=503, body=f"the database does not answer: {type(error).__name__}\n".encode(), media=PLAIN)
    return Answer(body=b"ready\n", media=PLAIN)


def metrics(call: Call) -> Answer:
    return Answer(body=call.metrics.page(), media=MEDIA)
