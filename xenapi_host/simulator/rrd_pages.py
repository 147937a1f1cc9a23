"""GET /rrd_updates, /host_rrd, /vm_rrd and /sr_rrd: what was measured, in XML or JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.http_wire import Request, Response
from xenapi_host.simulator.rrd import NAN, STEP, Archive, Rrd, Values, samples_for
from xenapi_host.simulator.wire_xml import escaped

_FUNCTIONS = ("AVERAGE", "MIN", "MAX")
_HEARTBEAT = 300.0
Key = tuple[str, str]


def answer(engine: Engine, request: Request, host: str | None) -> Response:
    """`host`: the member that was asked, whose own figures and VMs these are; None if one address stands for all."""
    if engine.meter is None:
        return _missing()
    known = engine.meter.known()
    as_json = request.parameter("json") == "true" or "json" in request.headers.get("accept", "")
    with engine.lock:
        here = engine.db.find("host", host or "") or engine.master
        residents = {engine.db.rows[ref]["uuid"] for ref in here["resident_VMs"]} if host else None
    if request.path == "/rrd_updates":
        try:
            table = _updates(request, known, here["uuid"], residents, engine.clock())
        except ValueError:
            return Response(status=400, content_type="text/html", close=True)
        return _page(_updates_json(table) if as_json else _updates_xml(table), as_json)
    kind = {"/host_rrd": "host", "/vm_rrd": "VM", "/sr_rrd": "SR"}[request.path]
    rrd = known.get((kind, here["uuid"] if kind == "host" else request.parameter("uuid")))
    if rrd is None:
        return _missing()
    return _page(json.dumps(_whole(rrd)) if as_json else _whole_xml(rrd), as_json)


def _missing() -> Response:
    return Response(status=404, content_type="text/html", close=True, version="HTTP/1.0")


def _page(text: str, as_json: bool) -> Response:
    return Response(body=text.encode(), content_type="application/json" if as_json else "text/xml")


def shown(value: float) -> str:
    """A number as the rrd daemon writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.4f}"


# -- updates: everything since a time, in one table --


def _updates(
    request: Request, known: dict[Key, Rrd], host: str, residents: set[str] | None, now: float
) -> dict[str, Any]:
    start = int(request.parameter("start", "0"))
    start = int(now) + start if start < 0 else start
    interval = float(request.parameter("interval", "0"))
    wanted = request.parameter("cf").upper()
    if wanted and wanted not in _FUNCTIONS:
        raise ValueError(wanted)
    samples = samples_for(now, start, interval)
    chosen = [(key, rrd) for key, rrd in sorted(known.items()) if _included(request, key, host, residents)]
    columns: list[tuple[str, Archive, str]] = [
        (f"{function}:{kind.lower()}:{uuid}:{name}", rrd.archive(function, samples), name)
        for function in ((wanted,) if wanted else _FUNCTIONS)
        for (kind, uuid), rrd in chosen
        for name in rrd.last
    ]
    step = samples * STEP
    end = max((int(rrd.updated) // step * step for _, rrd in chosen), default=int(now) // step * step)
    times: dict[int, list[float]] = {}
    cache: dict[int, list[tuple[int, Values]]] = {}
    for _, archive, name in columns:
        for time, values in cache.setdefault(id(archive), archive.between(start, end)):
            times.setdefault(time, []).append(values.get(name, NAN))
    rows = sorted(times.items(), reverse=True)
    return {
        "meta": {
            "start": min(times, default=start),
            "step": step,
            "end": end,
            "rows": len(rows),
            "columns": len(columns),
            "legend": [legend for legend, _, _ in columns],
        },
        "data": rows,
    }


def _included(request: Request, key: Key, host: str, residents: set[str] | None) -> bool:
    kind, uuid = key
    if kind == "host":
        return request.parameter("host") == "true" and uuid == host
    if kind == "SR":
        return request.parameter("sr_uuid") in (uuid, "all")
    asked = request.parameter("vm_uuid") or request.parameter("uuid") or "all"
    return asked == uuid or (asked == "all" and (residents is None or uuid in residents))


def _updates_xml(table: dict[str, Any]) -> str:
    meta = "".join(f"<{name}>{table['meta'][name]}</{name}>" for name in ("start", "step", "end", "rows", "columns"))
    legend = "".join(f"<entry>{escaped(entry)}</entry>" for entry in table["meta"]["legend"])
    rows = "".join(
        f"<row><t>{time}</t>{''.join(f'<v>{shown(value)}</v>' for value in values)}</row>"
        for time, values in table["data"]
    )
    return f"<xport><meta>{meta}<legend>{legend}</legend></meta><data>{rows}</data></xport>"


def _updates_json(table: dict[str, Any]) -> str:
    data = [{"t": time, "values": [_number(value) for value in values]} for time, values in table["data"]]
    return json.dumps({"meta": table["meta"], "data": data})


def _number(value: float) -> float | str:
    """JSON has no word for what is not a number."""
    return value if math.isfinite(value) else shown(value)


# -- one whole history --


def _whole(rrd: Rrd) -> dict[str, Any]:
    names = list(rrd.last)
    return {
        "version": "0003",
        "step": STEP,
        "lastupdate": int(rrd.updated),
        "ds": [
            {
                "name": name,
                "type": "GAUGE",
                "minimal_heartbeat": _HEARTBEAT,
                "min": 0.0,
                "max": "Infinity",
                "last_ds": rrd.last[name],
                "value": 0.0,
                "unknown_sec": 0,
            }
            for name in names
        ],
        "rra": [
            {
                "cf": archive.function,
                "pdp_per_row": archive.samples,
                "params": {"xff": 0.5},
                "database": [
                    [_number(values.get(name, NAN)) for name in names]
                    for _, values in archive.between(0, int(rrd.updated))
                ],
            }
            for archive in rrd.archives
        ],
    }


def _whole_xml(rrd: Rrd) -> str:
    whole = _whole(rrd)
    head = "".join(f"<{name}>{whole[name]}</{name}>" for name in ("version", "step", "lastupdate"))
    sources = "".join(f"<ds>{_elements(source)}</ds>" for source in whole["ds"])
    return f"<rrd>{head}{sources}{''.join(_archive_xml(archive) for archive in whole['rra'])}</rrd>"


def _archive_xml(archive: dict[str, Any]) -> str:
    rows = "".join(
        f"<row>{''.join(f'<v>{_plain(value)}</v>' for value in values)}</row>" for values in archive["database"]
    )
    head = (
        f"<cf>{archive['cf']}</cf><pdp_per_row>{archive['pdp_per_row']}</pdp_per_row><params><xff>0.5000</xff></params>"
    )
    return f"<rra>{head}<cdp_prep/><database>{rows}</database></rra>"


def _elements(fields: dict[str, Any]) -> str:
    return "".join(f"<{name}>{escaped(_plain(value))}</{name}>" for name, value in fields.items())


def _plain(value: float | int | str) -> str:
    return shown(value) if isinstance(value, float) else str(value)
