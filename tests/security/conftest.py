"""A front door with users of several projects, as an attacker meets it."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from api_cell.http.auth import hash_password
from api_cell.settings import Auth, User
from tests.support.api_house import ApiHouse, an_api_house


def _a_user(name: str, project: str, *, admin: bool = False) -> User:
    return User(name=name, project=project, secret=hash_password(f"{name}-pw", os.urandom(8)), admin=admin)


USERS = (_a_user("ann", "red"), _a_user("mallory", "blue"), _a_user("root", "ops", admin=True))


def basic(name: str, password: str) -> dict[str, str]:
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@dataclass(kw_only=True)
class Person:
    """A user who talks to the front door."""

    name: str
    house: ApiHouse

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> falcon.testing.Result:
        headers = {**basic(self.name, f"{self.name}-pw"), **more.pop("headers", {})}
        return self.house.ask(method, path, body, version=more.pop("version", "2.61"), headers=headers, **more)

    def a_server(self, **fields: Any) -> str:
        image = fields.pop("imageRef", None) or self.house.an_image()
        body = {"name": "web", "imageRef": image, "flavorRef": "1", "networks": "none", **fields}
        answer = self.ask("POST", "/v2.1/servers", {"server": body})
        assert answer.status_code == 202, answer.text
        self.house.daemon.step()
        return str(answer.json["server"]["id"])

    def used(self) -> tuple[int, int, int]:
        """Servers, processors and memory that count against the quota."""
        absolute = self.ask("GET", "/v2.1/limits").json["limits"]["absolute"]
        return absolute["totalInstancesUsed"], absolute["totalCoresUsed"], absolute["totalRAMUsed"]

    def act(self, server: str, action: str, argument: Any = None) -> falcon.testing.Result:
        return self.ask("POST", f"/v2.1/servers/{server}/action", {action: argument})


@dataclass(kw_only=True)
class Street:
    """The front door and who stands before it: ann has servers, mallory wants them, root is the administrator."""

    house: ApiHouse
    ann: Person
    mallory: Person
    root: Person


@contextmanager
def _a_street(folder: Path) -> Iterator[Street]:
    with an_api_house(folder, auth=Auth.HTTP_BASIC, users=USERS, image_secret=b"s" * 32) as house:
        house.app.api = replace(house.app.api, pause=lambda _: None)
        yield Street(house=house, **{name: Person(name=name, house=house) for name in ("ann", "mallory", "root")})


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """One for many attempts: passwords are slow to verify on purpose."""
    with _a_street(tmp_path_factory.mktemp("street")) as street:
        yield street


@pytest.fixture
def own_street(tmp_path: Path) -> Iterator[Street]:
    """For a test that breaks it."""
    with _a_street(tmp_path) as street:
        yield street
