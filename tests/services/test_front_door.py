"""The front door on MariaDB, with many clients at once: nothing is lost, doubled or over the quota."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api_cell.rows import ServerRow, UsageRow
from cells.rows import WakeRow
from tests.support.api_house import ApiHouse, an_api_house

CLIENTS = 8
ASKED = 40


@pytest.fixture
def house(tmp_path: Path, new_schema: Callable[[], str]) -> Iterator[ApiHouse]:
    with an_api_house(tmp_path, url=new_schema()) as house:
        yield house


def test_creations_of_one_project_at_once_never_overrun_its_quota(house: ApiHouse) -> None:
    image = house.an_image()
    allowed = 25
    house.ask("PUT", "/v2.1/os-quota-sets/local", {"quota_set": {"instances": allowed}})

    def create(n: int) -> int:
        body = {"server": {"name": f"s{n}", "imageRef": image, "flavorRef": "1", "networks": "none"}}
        return house.ask("POST", "/v2.1/servers", body, version="2.61").status_code

    with ThreadPoolExecutor(CLIENTS) as clients:
        codes = Counter(clients.map(create, range(ASKED)))
    # A client that lost every race is told to come again (503), and then nothing of it was saved.
    assert set(codes) <= {202, 403, 503} and codes[202] <= allowed
    with house.store.unit(lock=False) as unit:
        (usage,) = unit.find(UsageRow)
        assert unit.count(ServerRow) == unit.count(WakeRow) == usage.servers == codes[202]
    assert codes[503] == 0 and codes[202] == allowed


def test_of_wishes_uttered_at_once_for_one_server_one_is_taken(house: ApiHouse) -> None:
    server = house.a_server()
    with ThreadPoolExecutor(CLIENTS) as clients:
        codes = Counter(clients.map(lambda _: house.act(server, "os-stop").status_code, range(CLIENTS)))
    assert codes == {202: 1, 409: CLIENTS - 1}
    house.daemon.step()
    assert house.server(server)["status"] == "SHUTOFF"


def test_lists_filters_and_pages_mean_the_same_as_on_sqlite(house: ApiHouse) -> None:
    made = [house.a_server(name) for name in ("Web_1", "webX1", "gr\u00f6\u00dfe \U0001f600", "db")]

    def listed(query: str) -> list[str]:
        return [s["id"] for s in house.ask("GET", f"/v2.1/servers?{query}").json["servers"]]

    assert listed("limit=3") == [made[3], made[2], made[1]]
    assert listed(f"limit=3&marker={made[1]}") == [made[0]]
    assert listed("name=web") == [made[1], made[0]]
    assert listed("name=^web_1$") == [made[0]]
    assert house.server(made[2])["name"] == "gr\u00f6\u00dfe \U0001f600"
    house.ask("DELETE", f"/v2.1/servers/{made[0]}")
    house.daemon.step()
    assert made[0] in listed("changes-since=2026-01-01T00:00:00Z")
    assert made[0] not in listed("")
