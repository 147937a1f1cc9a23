"""/os-simple-tenant-usage: what projects took, for bills and reports."""

from collections.abc import Iterable
from itertools import groupby

from api_cell.errors import Forbidden, Invalid
from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.http.paging import page_size
from api_cell.http.servers import instant, marker_of
from api_cell.service import usage
from api_cell.service.usage import Period, ServerUsage
from cells.names import SECOND, id_text

_FOUR_WEEKS = 28 * 24 * 3600 * SECOND
_PAGED_SINCE = 40


def of_all(call: Call) -> Answer:
    period = _period(call)
    found, links = _found(call, None, period)
    ordered = sorted(found, key=lambda each: each.project)
    detailed = call.query.text("detailed") == "1"
    usages = [
        views.usage(project, tuple(each), period, detailed=detailed)
        for project, each in groupby(ordered, key=lambda each: each.project)
    ]
    return Answer(body={"tenant_usages": usages, **({"tenant_usages_links": links} if links else {})})


def of_project(call: Call) -> Answer:
    project = call.params["project"]
    if project != call.caller.project and not call.caller.admin:
        raise Forbidden("Only an administrator may ask for another project's usage")
    period = _period(call)
    found, links = _found(call, project, period)
    servers = tuple(found)
    shown = views.usage(project, servers, period, detailed=True) if servers else {}
    return Answer(body={"tenant_usage": shown, **({"tenant_usage_links": links} if links else {})})


def _period(call: Call) -> Period:
    now = call.api.clock()
    end = instant("end", call.query.text("end"))
    end = now if end is None else end
    start = instant("start", call.query.text("start"))
    start = max(0, end - _FOUR_WEEKS if start is None else start)  # there was nothing before 1970
    if start >= end:
        raise Invalid("start: the start time cannot occur after the end time; give an earlier one")
    return Period(start=start, end=end, now=now)


def _found(call: Call, project: str | None, period: Period) -> tuple[Iterable[ServerUsage], list[dict[str, str]]]:
    """The servers of this answer, and where more are."""
    if call.version < _PAGED_SINCE:
        return usage.every(call.api, project, period, call.api.settings.largest_page), []
    after = marker_of(call.query.text("marker"))
    found, last = usage.page(call.api, project, period, after, max(page_size(call), 1))
    return found, [] if last is None else views.next_link(call.base, call.path, call.query.pairs(), id_text(last))
