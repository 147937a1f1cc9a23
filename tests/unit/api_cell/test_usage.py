"""Usage: hours from the cell's own records, whose they are, and pages."""

from pathlib import Path
from typing import Any

import pytest

from api_cell.service.usage import Period, every
from cells.names import SECOND, iso
from tests.support.api_house import ApiHouse, an_api_house

HOUR = 3600 * SECOND
ALL = "/v2.1/os-simple-tenant-usage"


@pytest.fixture
def house(tmp_path: Path):
    with an_api_house(tmp_path) as house:
        yield house


def _usages(house: ApiHouse, project: str | None, start: int, end: int, now: int) -> dict[str, float]:
    found = every(house.app.api, project, Period(start=start, end=end, now=now), 2)
    return {each.name: round(each.hours, 2) for each in found}


def test_hours_count_from_creation_to_deletion_within_the_period(house: ApiHouse) -> None:
    began = house.app.api.clock()
    for name in ("a", "b", "c"):
        house.a_server(name)
    gone = house.a_server("gone")
    house.ask("DELETE", f"/v2.1/servers/{gone}")
    house.daemon.step()
    house.a_server("never", step=False)
    living = {"a": 10.0, "b": 10.0, "c": 10.0}
    assert _usages(house, "local", began, began + 99 * HOUR, began + 10 * HOUR) == {**living, "gone": 0.0}
    assert _usages(house, None, began + HOUR, began + 3 * HOUR, began + 10 * HOUR) == dict.fromkeys("abc", 2.0)
    assert _usages(house, "local", began - 9 * HOUR, began - HOUR, began + 10 * HOUR) == {}
    assert _usages(house, "other", began, began + HOUR, began + HOUR) == {}


def _ask(house: ApiHouse, path: str, version: str = "2.61") -> Any:
    answer = house.ask("GET", path, version=version)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_project_sees_its_servers_and_their_sums(house: ApiHouse) -> None:
    servers = {house.a_server(name, flavorRef="3") for name in ("a", "b")}
    end = iso(house.app.api.clock() + HOUR)
    taken = _ask(house, f"{ALL}/local?end={end}")["tenant_usage"]
    assert {each["instance_id"] for each in taken["server_usages"]} == servers
    assert taken["total_hours"] == pytest.approx(sum(each["hours"] for each in taken["server_usages"]))
    assert taken["total_hours"] > 0
    assert taken["total_vcpus_usage"] == pytest.approx(4 * taken["total_hours"])
    assert taken["total_memory_mb_usage"] == pytest.approx(8192 * taken["total_hours"])
    assert taken["total_local_gb_usage"] == pytest.approx(80 * taken["total_hours"])
    (one,) = _ask(house, ALL)["tenant_usages"]
    assert one["tenant_id"] == "local" and "server_usages" not in one
    assert len(_ask(house, f"{ALL}?detailed=1")["tenant_usages"][0]["server_usages"]) == 2
    assert _ask(house, f"{ALL}/nobody")["tenant_usage"] == {}


def test_pages_lead_to_each_other_since_the_version_that_has_them(house: ApiHouse) -> None:
    made = [house.a_server(name) for name in ("a", "b", "c")]
    seen: list[str] = []
    path = f"{ALL}/local?limit=2"
    while path:
        body = _ask(house, path)
        seen += [each["instance_id"] for each in body["tenant_usage"].get("server_usages", ())]
        links = body.get("tenant_usage_links")
        path = links[0]["href"][links[0]["href"].index("/v2.1") :] if links else ""
    assert seen == made
    assert len(_ask(house, f"{ALL}/local?limit=2", "2.39")["tenant_usage"]["server_usages"]) == 3


@pytest.mark.parametrize("query", ["start=2026-02-01&end=2026-01-01", "end=0001-01-01", "start=never", "marker=x"])
def test_period_or_marker_that_makes_no_sense_is_refused(house: ApiHouse, query: str) -> None:
    assert house.ask("GET", f"{ALL}?{query}", version="2.61").status_code == 400


def test_period_begins_in_1970_however_early_it_is_asked_for(house: ApiHouse) -> None:
    house.a_server()
    (usage,) = house.ask("GET", f"{ALL}?start=0011-01-06").json["tenant_usages"]
    assert usage["start"] == "1970-01-01T00:00:00.000000"
