"""Images that build upon others: which chains are followed, which backups may be built upon, which must stay."""

from typing import Any

import pytest

from api_cell.backups import Rotation, too_old
from api_cell.errors import Invalid
from api_cell.images import Image
from api_cell.incremental import LONGEST, bases, needed_by, parts_of
from cells.model import BackupMark, ImagePart


def _image(name: str, parent: str = "", **fields: Any) -> Image:
    properties: dict[str, str] = {"backup_type": "daily"}
    if parent:
        properties[BackupMark.PARENT] = parent
    plain: dict[str, Any] = {
        "owner": "p",
        "created": ord(name[-1]),
        "updated": 0,
        "status": "active",
        "checksum": f"md5-{name}",
    }
    return Image(id=name, name="b", properties=properties, **(plain | fields))


def _parts(image: Image, *others: Image) -> tuple[ImagePart, ...]:
    return parts_of(image, {other.id: other for other in (image, *others)}.get, "p", "server.imageRef")


SERIES = (_image("a"), _image("b", "a"), _image("c", "b"))


def test_chain_is_told_newest_first_with_checksums() -> None:
    assert _parts(SERIES[2], *SERIES) == (
        ImagePart(id="b", checksum="md5-b"),
        ImagePart(id="a", checksum="md5-a"),
    )
    assert _parts(SERIES[0]) == ()


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ((), "b is gone"),
        ((_image("b", "c"),), "c builds upon itself"),
        ((_image("b", "b"),), "b builds upon itself"),
        ((_image("b", owner="somebody else"),), "b is gone"),
        ((_image("b", status="queued"),), "b is queued"),
    ],
    ids=["gone", "circle", "its own parent", "another project's", "not whole"],
)
def test_chain_that_cannot_be_used_is_refused_before_any_leaf_is_asked(others: tuple[Image, ...], why: str) -> None:
    with pytest.raises(Invalid, match=f"server.imageRef: image c is an incremental backup.*{why}"):
        _parts(SERIES[2], *others)


def test_chain_longer_than_an_image_may_be_is_refused() -> None:
    images = [_image(str(n), str(n + 1)) for n in range(LONGEST + 1)]
    with pytest.raises(Invalid, match=f"more than {LONGEST}"):
        _parts(*images)


def test_backups_with_all_that_they_build_upon_are_bases() -> None:
    coming = _image("d", status="queued")
    assert bases([*SERIES, coming], "p") == ("d", "c", "b", "a")
    assert bases(SERIES[1:], "p") == ()
    assert bases([_image("a", owner="q"), *SERIES[1:]], "p") == ()
    assert bases([_image("a", status="killed"), *SERIES[1:]], "p") == ()


def test_rotation_keeps_what_a_kept_backup_of_any_kind_builds_upon() -> None:
    daily = Rotation(server="s", project="p", kind="daily", keep=1)
    assert too_old(SERIES, daily) == ()
    fresh = _image("x")
    assert [image.id for image in too_old([*SERIES, fresh], daily)] == ["c", "b", "a"]
    weekly = _image("w", "b")
    weekly.properties["backup_type"] = "weekly"
    assert [image.id for image in too_old([*SERIES, weekly, fresh], daily)] == ["c"]
    protected = _image("c", "b", protected=True)
    assert too_old([*SERIES[:2], protected, fresh], daily) == ()


def test_what_is_needed_ends_where_a_chain_is_broken_or_goes_in_a_circle() -> None:
    assert needed_by([_image("c", "b")], [_image("b", "gone")]) == {"b", "gone"}
    assert needed_by([_image("c", "b")], [_image("b", "c"), _image("c", "b")]) == {"b", "c"}
