"""A commit whose outcome nobody knows: what landed is found again, what did not is done again, nothing twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from api_cell.rows import ServerRow, UsageRow
from cells.errors import AmbiguousCommit
from cells.rows import WakeRow
from tests.support.api_house import ApiHouse


class LosesItsConnection:
    """The store, but the next unit that writes ends in a lost connection: after its commit, or before."""

    def __init__(self, store: Any, *, landed: bool) -> None:
        self._store, self._landed, self.armed = store, landed, False

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator[Any]:
        lost = self.armed and lock
        with self._store.unit(lock=lock) as unit:
            yield unit
            if lost and not self._landed:
                self.armed = False
                raise AmbiguousCommit("connection lost")
        if lost:
            self.armed = False
            raise AmbiguousCommit("connection lost")

    def close(self) -> None:
        self._store.close()


@pytest.mark.parametrize("landed", [True, False])
def test_an_ambiguous_commit_has_its_effect_once(house: ApiHouse, landed: bool) -> None:
    store = LosesItsConnection(house.store, landed=landed)
    house.app.api = replace(house.app.api, store=store)
    image = house.an_image()
    store.armed = True
    server = house.a_server(imageRef=image)
    with house.store.unit(lock=False) as unit:
        assert unit.count(ServerRow) == 1
        assert unit.find(UsageRow)[0].servers == 1
    store.armed = True
    answer = house.act(server, "createImage", {"name": "snap"})
    assert answer.status_code == 202 and not store.armed
    assert [image.id for image in house.images.find("snap")] == [answer.json["image_id"]]
    with house.store.unit(lock=False) as unit:
        assert unit.count(WakeRow) == 1
