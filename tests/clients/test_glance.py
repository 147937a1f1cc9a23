"""The production shape's images: a real Glance behind a real Keystone, and dom0s that move them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from api_cell.glance import GlanceImages
from api_cell.rows import ServerRow
from api_cell.settings import Keystone as Settings
from cells.cli.demo_tree import DemoTree
from cells.errors import Temporary
from cells.names import id_from_text
from tests.support.full_tree import Rest, a_full_tree, an_image_file, until
from tests.support.glance import PASSWORD as GLANCE_PASSWORD
from tests.support.glance import a_glance
from tests.support.keystone import Keystone, a_keystone

# keystonemiddleware stands on WebOb, which imports cgi until Python has it no more.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")]

PASSWORD = "a-password"
PROJECTS = {"ann": "red", "mallory": "blue"}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A tree whose images are in a Glance of its Keystone's."""

    tree: DemoTree
    keystone: Keystone
    glance: str
    folder: Path

    def rest(self, user: str) -> Rest:
        token = self.keystone.login(user, PASSWORD, PROJECTS[user])
        return Rest(endpoint=self.tree.endpoint, token=lambda: token)

    def upload(self, user: str, path: Path) -> str:
        """As a client does it: into Glance, not here."""
        headers = {"X-Auth-Token": self.keystone.login(user, PASSWORD, PROJECTS[user])}
        wish = {"name": "demo-linux", "disk_format": "vhd", "container_format": "ovf", "visibility": "shared"}
        made = requests.post(f"{self.glance}/v2/images", json=wish, headers=headers, timeout=60)
        made.raise_for_status()
        image = str(made.json()["id"])
        headers |= {"Content-Type": "application/octet-stream"}
        url = f"{self.glance}/v2/images/{image}/file"
        requests.put(url, data=path.read_bytes(), headers=headers, timeout=60).raise_for_status()
        return image

    def share(self, user: str, image: str, other: str) -> None:
        headers = {"X-Auth-Token": self.keystone.login(user, PASSWORD, PROJECTS[user])}
        wish = {"member": self.keystone.project_named(PROJECTS[other])}
        url = f"{self.glance}/v2/images/{image}/members"
        requests.post(url, json=wish, headers=headers, timeout=60).raise_for_status()

    def shown(self, user: str, image: str) -> dict[str, object]:
        headers = {"X-Auth-Token": self.keystone.login(user, PASSWORD, PROJECTS[user])}
        answer = requests.get(f"{self.glance}/v2/images/{image}", headers=headers, timeout=60)
        return dict(answer.json()) if answer.ok else {}


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    for name in ("keystone", "glance", "tree"):
        (tmp_path / name).mkdir()
    with a_keystone(tmp_path / "keystone") as keystone:
        _people(keystone)
        with a_glance(tmp_path / "glance", keystone) as glance:
            password_file, secret_file = tmp_path / "password", tmp_path / "secret"
            password_file.write_text(PASSWORD)
            secret_file.write_text("s" * 32)
            front = {
                "auth": "keystone",
                "secret_file": str(secret_file),
                "keystone": {"url": keystone.url, "password_file": str(password_file), "remember": 0},
                "glance": {"url": glance},
            }
            with a_full_tree(tmp_path / "tree", front) as tree:
                yield Region(tree=tree, keystone=keystone, glance=glance, folder=tmp_path)


def _people(keystone: Keystone) -> None:
    projects = {name: keystone.make("project", name=name, domain_id="default") for name in ("red", "blue", "service")}
    for user, project in PROJECTS.items():
        keystone.grant(_user(keystone, user, PASSWORD), "member", projects[project])
    ours = _user(keystone, "celltree", PASSWORD)
    keystone.grant(ours, "admin", projects["service"])
    keystone.grant(ours, "service", projects["service"])
    keystone.grant(_user(keystone, "glance", GLANCE_PASSWORD), "service", projects["service"])


def _user(keystone: Keystone, name: str, password: str) -> str:
    return keystone.make("user", name=name, password=password, domain_id="default")


def test_a_server_is_built_from_an_image_in_glance_and_its_snapshot_is_there(region: Region) -> None:
    image = region.upload("ann", an_image_file(region.folder))
    ann, mallory = region.rest("ann"), region.rest("mallory")
    wish = {"name": "web", "imageRef": image, "flavorRef": "1", "networks": "none"}
    mallory.ask("POST", "/servers", {"server": wish}, code=400)
    region.share("ann", image, "mallory")
    server = ann.built("web", image)
    snapshot = ann.act(server, "createImage", {"name": "kept"})["image_id"]
    until("the snapshot is active", lambda: region.shown("ann", snapshot).get("status") == "active")
    made = region.shown("ann", snapshot)
    assert (made["name"], made["owner"]) == ("kept", region.keystone.project_named("red"))
    assert (made["instance_uuid"], made["base_image_ref"]) == (server, image)
    assert region.shown("mallory", snapshot) == {}
    mallory.built("shared", image)
    ann.built("again", snapshot)
    _no_token_lies_about(region, server)
    _refusals_are_told_from_trouble(region)


def _refusals_are_told_from_trouble(region: Region) -> None:
    """What this Keystone says to our user, and what others say that are none."""
    from api_cell.http.service_user import ServiceUser

    good = Settings(url=region.keystone.url)
    known = ServiceUser(good, PASSWORD)
    known.ask_ahead()
    until("our user has a token", known.is_ready)
    assert known.refusal() == ""
    wrong = (
        ServiceUser(good, "another password"),
        ServiceUser(replace(good, user="nobody"), PASSWORD),
        ServiceUser(replace(good, project="red"), PASSWORD),
        ServiceUser(replace(good, url=f"{region.keystone.url}/nowhere"), PASSWORD),
        ServiceUser(replace(good, url=region.glance), PASSWORD),
    )
    for user in wrong:
        user.ask_ahead()
        until(f"{user!r} is refused", lambda user=user: bool(user.refusal()))  # type: ignore[misc]
        assert not user.is_ready()
    away = ServiceUser(replace(good, url="http://127.0.0.1:9/v3"), PASSWORD)
    with pytest.raises(Temporary):
        away.headers()
    assert away.refusal() == ""


def _no_token_lies_about(region: Region, server: str) -> None:
    """What proves who we are is sealed for the leaf on its way there."""
    front = region.tree.cell("east").role.front  # type: ignore[attr-defined]
    token = front.read_token("any").encode()
    assert len(token) > 100
    with region.tree.cell("east").store.unit(lock=False) as unit:
        assert unit.get(ServerRow, id_from_text(server)) is not None
    for path in (region.folder / "tree").rglob("*"):
        assert not path.is_file() or token not in path.read_bytes(), path
    images = front.images
    assert isinstance(images, GlanceImages)
    # A token that is refused is given up for a new one.
    region.keystone.revoke(token.decode())
    assert {image.name for image in images.find("kept")} == {"kept"}
