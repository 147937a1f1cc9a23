"""Who asks too much is told so, and when to come again; others do not feel it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_cell.http.rates import Rates
from api_cell.settings import Auth, Limits
from tests.support.api_house import ApiHouse, an_api_house
from tests.unit.api_cell.test_doors import USERS, basic

ANN, BOB = basic("ann", "ann-pw"), basic("bob", "bob-pw")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def house_with(folder: Path, **limits: Any) -> Any:
    return an_api_house(folder, auth=Auth.HTTP_BASIC, users=USERS, image_secret=b"s" * 32, limits=Limits(**limits))


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[ApiHouse]:
    with house_with(tmp_path, waiting=3, waiting_in_all=4) as house:
        yield house


def build(house: ApiHouse, who: dict[str, str], **more: Any) -> Any:
    body = {"name": "vm", "imageRef": house.an_image(), "flavorRef": "1", **more}
    return house.ask("POST", "/v2.1/servers", {"server": body}, headers=who)


def servers(house: ApiHouse, who: dict[str, str]) -> Any:
    return house.ask("GET", "/v2.1/servers", headers=who)


def test_a_bucket_gives_its_burst_then_its_rate_and_says_how_long_to_wait():
    clock = Clock()
    rates = Rates(2.0, 3, clock)
    assert [rates.take("red") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.5
    assert (rates.take("red"), rates.take("red")) == (0.0, 0.5)
    clock.now += 3600
    assert [rates.take("red") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_projects_have_a_bucket_each_and_no_rate_is_no_limit():
    rates = Rates(1.0, 1, Clock())
    assert (rates.take("red"), rates.take("blue"), rates.take("red")) == (0.0, 0.0, 1.0)
    assert {Rates(0, 1, Clock()).take("red") for _ in range(100)} == {0.0}


def test_a_noisy_project_gets_429_with_retry_after_and_the_next_one_is_served(tmp_path: Path):
    with house_with(tmp_path, requests_per_second=0.5, burst=2) as house:
        answers = [servers(house, ANN) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json["overLimit"]["code"] == 429
        assert answers[2].headers["Retry-After"] == "2"
        assert servers(house, BOB).status_code == 200
        assert house.ask("GET", "/healthz").status_code == 200


def test_builds_that_wait_are_bounded_for_a_project_and_for_the_cell(narrow: ApiHouse):
    assert [build(narrow, ANN).status_code for _ in range(4)] == [202, 202, 202, 429]
    assert build(narrow, BOB).status_code == 202
    busy = build(narrow, BOB)
    assert (busy.status_code, int(busy.headers["Retry-After"]) > 0) == (503, True)
    narrow.daemon.step()
    assert [build(narrow, who).status_code for who in (ANN, BOB)] == [202, 202]


def test_of_many_alike_as_many_come_in_as_may_wait(narrow: ApiHouse):
    assert build(narrow, ANN, min_count=1, max_count=9).status_code == 202
    assert len(servers(narrow, ANN).json["servers"]) == 3
    assert build(narrow, ANN, min_count=4, max_count=9).status_code == 429
