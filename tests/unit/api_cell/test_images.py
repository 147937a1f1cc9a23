"""The folder of images, over its Glance routes."""

import hashlib
import io

import pytest

from api_cell.errors import Invalid, TooLarge
from api_cell.images import FolderImages
from tests.support.api_house import ApiHouse, MovingClock

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def a_queued_image(house: ApiHouse, **fields: object) -> str:
    body = {"name": "n", "disk_format": "vhd", "container_format": "ovf", **fields}
    answer = house.ask("POST", "/image/v2/images", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def test_an_image_is_queued_until_its_data_has_come_and_then_has_checksum_and_size(house: ApiHouse) -> None:
    image = a_queued_image(house, os_type="linux", tags=["a"])
    path = f"/image/v2/images/{image}"
    assert house.ask("GET", path).json["status"] == "queued"
    assert house.ask("GET", f"{path}/file").status_code == 204
    assert house.ask("PUT", f"{path}/file", raw=b"data", headers=OCTETS).status_code == 204
    view = house.ask("GET", path).json
    assert (view["status"], view["size"], view["os_type"]) == ("active", 4, "linux")
    assert view["checksum"] == hashlib.md5(b"data").hexdigest()
    assert house.ask("GET", f"{path}/file").content == b"data"
    again = house.ask("PUT", f"{path}/file", raw=b"other", headers=OCTETS)
    assert again.status_code == 409
    assert house.ask("GET", f"{path}/file").content == b"data"
    assert house.ask("DELETE", path).status_code == 204
    assert house.ask("GET", path).status_code == 404


def test_images_can_be_patched_within_reason(house: ApiHouse) -> None:
    image = a_queued_image(house)
    path = f"/image/v2/images/{image}"

    def patch(*changes: dict[str, object]) -> int:
        return house.ask("PATCH", path, list(changes), headers=PATCH).status_code

    assert (
        patch({"op": "add", "path": "/color", "value": "red"}, {"op": "replace", "path": "/min_disk", "value": 3})
        == 200
    )
    view = house.ask("GET", path).json
    assert (view["color"], view["min_disk"]) == ("red", 3)
    assert patch({"op": "remove", "path": "/color"}) == 200
    assert "color" not in house.ask("GET", path).json
    assert patch({"op": "replace", "path": "/status", "value": "active"}) == 403
    assert patch({"op": "replace", "path": "/min_disk", "value": -1}) == 400
    assert patch({"op": "remove", "path": "/color"}) == 409
    assert patch({"op": "replace", "path": "/protected", "value": True}) == 200
    assert house.ask("DELETE", path).status_code == 403


def test_lists_filter_and_page(house: ApiHouse) -> None:
    ids = [house.an_image(f"i{n}") for n in range(3)]
    queued = a_queued_image(house)

    def listed(query: str) -> list[str]:
        return [i["id"] for i in house.ask("GET", f"/image/v2/images?{query}").json["images"]]

    assert listed("name=i1") == [ids[1]]
    assert set(listed(f"id=in:{ids[0]},{ids[2]}")) == {ids[0], ids[2]}
    assert queued not in listed("status=active")
    assert listed("sort=name:asc&status=active") == ids
    first = house.ask("GET", "/image/v2/images?limit=2").json
    assert len(first["images"]) == 2 and first["next"].startswith("/v2/images?")
    rest = house.ask("GET", "/image" + first["next"]).json
    assert {i["id"] for i in first["images"] + rest["images"]} == {*ids, queued} and "next" not in rest


def test_lists_filter_by_any_property(house: ApiHouse) -> None:
    backup = house.an_image("backup", properties={"image_type": "backup", "instance_uuid": "x"})
    house.an_image("snapshot", properties={"image_type": "snapshot", "instance_uuid": "x"})

    def ids(query: str) -> list[str]:
        return [image["id"] for image in house.ask("GET", f"/image/v2/images?{query}").json["images"]]

    assert len(ids("instance_uuid=x&sort_key=created_at")) == 2
    assert ids("instance_uuid=x&image_type=backup&status=active") == [backup]
    assert ids("backup_type=daily") == []


def test_an_image_has_no_tasks(house: ApiHouse) -> None:
    assert house.ask("GET", f"/image/v2/images/{house.an_image()}/tasks").json == {"tasks": []}


@pytest.mark.parametrize("image", ["demo", "..%2f..%2fetc", "0" * 36 + "x", "%00"])
def test_what_is_no_image_is_404(house: ApiHouse, image: str) -> None:
    assert house.ask("GET", f"/image/v2/images/{image}").status_code == 404


def test_an_upload_that_breaks_off_leaves_the_image_queued_and_no_rubbish(house: ApiHouse, tmp_path) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionError("the client went away")

    image = a_queued_image(house)
    with pytest.raises(ConnectionError):
        house.images.fill(image, Broken())
    assert house.images.need(image).status == "queued"
    assert not list((tmp_path / "images").glob("*.part*"))


def test_data_over_the_limit_is_refused(house: ApiHouse, tmp_path) -> None:
    clock = MovingClock()
    images = FolderImages(tmp_path / "small", url="", clock=clock, ids=house.app.api.ids, largest=3)
    image = images.create(name="n", owner="p", disk_format="raw", container_format="bare")
    with pytest.raises(TooLarge):
        images.fill(image, io.BytesIO(b"four"))
    assert images.need(image).status == "queued"


def test_a_leaf_is_told_where_to_fetch_an_image(house: ApiHouse) -> None:
    ref = house.images.ref(house.an_image("demo", min_disk=2))
    assert (ref.url, ref.name, ref.size, ref.min_disk_gib) == ("http://images.invalid/image", "demo", 13, 2)
    assert ref.checksum == hashlib.md5(b"bytes of demo").hexdigest()


def test_one_upload_at_a_time_and_one_left_by_a_dead_process_can_be_done_again(house: ApiHouse) -> None:
    image = a_queued_image(house)
    path = f"/image/v2/images/{image}/file"

    class AsksMeanwhile(io.BytesIO):
        code = 0

        def read(self, size: int | None = -1) -> bytes:
            self.code = self.code or house.ask("PUT", path, raw=b"other", headers=OCTETS).status_code
            return super().read(size)

    source = AsksMeanwhile(b"data")
    assert house.images.fill(image, source).size == 4
    assert source.code == 409
    left = a_queued_image(house)
    house.images.change(left, status="saving")
    assert house.ask("PUT", f"/image/v2/images/{left}/file", raw=b"again", headers=OCTETS).status_code == 204


def test_data_that_breaks_off_is_not_taken_for_the_image(house: ApiHouse) -> None:
    image = a_queued_image(house)
    with pytest.raises(Invalid, match="broke off"):
        house.images.fill(image, io.BytesIO(b"dat"), length=4)
    assert house.images.need(image).status == "queued"
