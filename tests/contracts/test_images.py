"""What both holders of images promise: the folder of images, and a Glance v2 over HTTP (the folder, served)."""

import base64
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_cell.errors import NotFound
from api_cell.glance import GlanceImages
from api_cell.http.auth import hash_password
from api_cell.http.serve import serve
from api_cell.images import Images
from api_cell.settings import Auth, User
from cells.errors import BadInput, Permanent, Temporary
from tests.support.api_house import an_api_house

Fill = Callable[[str, bytes], object]
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"cell:pw").decode()}


@pytest.fixture(params=["folder", "glance"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Images, Fill]]:
    cell = User(name="cell", project="ops", secret=hash_password("pw", os.urandom(8)), admin=True)
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=(cell,)) as house:

        def fill(image: str, data: bytes) -> object:
            return house.images.fill(image, io.BytesIO(data))

        if request.param == "folder":
            yield house.images, fill
            return
        server = serve(house.app)
        try:
            yield GlanceImages(f"http://127.0.0.1:{server.port}/image", headers=lambda: LOGIN), fill
        finally:
            server.stop()


def test_a_new_image_is_queued_and_found_by_id_and_name(held: tuple[Images, Fill]) -> None:
    images, _ = held
    made = images.create(
        name="snäp & co", owner="red", disk_format="vhd", container_format="ovf", min_disk=3, properties={"a": "b"}
    )
    image = images.get(made)
    assert image is not None and images.find("snäp & co") == (image,)
    assert (image.status, image.owner, image.min_disk, image.properties) == ("queued", "red", 3, {"a": "b"})
    assert images.find("other") == ()


def test_an_active_image_is_described_to_leaves(held: tuple[Images, Fill]) -> None:
    images, fill = held
    made = images.create(name="n", owner="red", disk_format="vhd", container_format="ovf", properties={"os": "linux"})
    fill(made, b"four")
    ref = images.ref(made)
    assert (ref.size, ref.properties, ref.disk_format) == (4, {"os": "linux"}, "vhd")
    assert ref.checksum == "8cbad96aced40b3838dd9f07f6ef5772"
    assert ref.url.startswith("http://")


def test_what_is_not_there_is_none_and_deleting_it_is_nothing(held: tuple[Images, Fill]) -> None:
    images, _ = held
    made = images.create(name="n", owner="red")
    images.delete(made)
    images.delete(made)
    assert images.get(made) is None and images.get("../../etc") is None
    with pytest.raises(NotFound):
        images.ref(made)


def test_every_image_of_a_name_is_found_over_several_pages(tmp_path: Path) -> None:
    with an_api_house(tmp_path, largest_page=2) as house:
        made = {house.an_image("same") for _ in range(5)}
        server = serve(house.app)
        try:
            images = GlanceImages(f"http://127.0.0.1:{server.port}/image")
            assert {image.id for image in images.find("same")} == made
        finally:
            server.stop()


def test_a_glance_that_is_away_or_refuses_is_told_apart(tmp_path: Path) -> None:
    user = User(name="cell", project="ops", secret=hash_password("pw", os.urandom(8)))
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=(user,)) as house:
        server = serve(house.app)
        images = GlanceImages(f"http://127.0.0.1:{server.port}/image")
        try:
            with pytest.raises(Permanent, match="401"):
                images.find("n")
        finally:
            server.stop()
        with pytest.raises(Temporary, match="out of reach"):
            images.find("n")


def test_a_token_that_is_refused_is_given_up_for_a_new_one_once(tmp_path: Path) -> None:
    user = User(name="cell", project="ops", secret=hash_password("pw", os.urandom(8)))
    stale = {"Authorization": "Basic " + base64.b64encode(b"cell:old").decode()}
    logins = [LOGIN, stale, stale]
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=(user,)) as house:
        server = serve(house.app)
        url = f"http://127.0.0.1:{server.port}/image"
        images = GlanceImages(url, headers=lambda: logins[-1], forget=lambda: logins.__delitem__(-1))
        try:
            with pytest.raises(Permanent, match="401"):
                images.find("n")
            assert logins == [LOGIN, stale]
            assert images.find("n") == () and logins == [LOGIN]
        finally:
            server.stop()


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(BadInput, match="endpoint"):
        GlanceImages("file:///etc")
