"""The front door on SQLite and MariaDB, with many clients at once: nothing is lost, doubled or over the quota."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api_cell.rows import ServerRow, UsageRow
from cells.rows import WakeRow
from tests.support.api_house import ApiHouse, an_api_house

CLIENTS = 8
ASKED = 40


@pytest.fixture(params=["sqlite", "mariadb"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ApiHouse]:
    url = request.getfixturevalue("new_schema")() if request.param == "mariadb" else ""
    with an_api_house(tmp_path, url=url, most_keypairs=7) as house:
        yield house


def _at_once(asks: Iterable[Callable[[], Any]]) -> Counter[int]:
    """Status codes of requests made by many clients at the same time."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        return Counter(answer.status_code for answer in clients.map(lambda ask: ask(), asks))


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


def test_resizes_and_deletes_at_once_never_overrun_the_quota_and_give_all_of_it_back(house: ApiHouse) -> None:
    image = house.an_image()
    servers = [house.a_server(imageRef=image) for _ in range(6)]
    # Room for three of them to become m1.large, of 4 processors and 8 GiB.
    house.ask("PUT", "/v2.1/os-quota-sets/local", {"quota_set": {"cores": 3 + 3 * 4, "ram": -1}})
    codes = _at_once(partial(house.act, server, "resize", {"flavorRef": "3"}) for server in servers for _ in range(3))
    assert set(codes) <= {202, 403, 409}
    assert codes[202] == 3
    codes = _at_once(partial(house.ask, "DELETE", f"/v2.1/servers/{server}") for server in servers for _ in range(3))
    assert set(codes) == {204}
    house.daemon.step()
    with house.store.unit(lock=False) as unit:
        (usage,) = unit.find(UsageRow)
        assert (usage.servers, usage.vcpus, usage.ram_mib, unit.count(ServerRow)) == (0, 0, 0, 0)


def test_key_pairs_made_at_once_are_no_more_than_a_user_may_have(house: ApiHouse) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0TJGBzFvzPZgyLfCJWnXrl0CsYHhMFNZBZzSAkPXYZ"
    bodies = [{"keypair": {"name": f"k{n}", "public_key": key}} for n in range(24)]
    codes = _at_once(partial(house.ask, "POST", "/v2.1/os-keypairs", body) for body in bodies)
    assert codes == {200: 7, 403: 17}
    assert len(house.ask("GET", "/v2.1/os-keypairs").json["keypairs"]) == 7
