"""What servers take of their storage: shared layers are nobody's own, and count once for all."""

from xenapi_host.layers import Layer
from xenapi_host.usage import Usage, usage_of

ONE, TWO = bytes(16), bytes([1] * 16)


def _layer(uuid: str, parent: str, size: int, *, hidden: bool = False) -> tuple[str, Layer]:
    return uuid, Layer(uuid=uuid, parent=parent, hidden=hidden, size=size)


LAYERS = dict(
    (
        _layer("image-base", "", 1000, hidden=True),
        _layer("image", "image-base", 1),
        _layer("one-old", "image-base", 200, hidden=True),
        _layer("one", "one-old", 30),
        _layer("one-data", "", 7),
        _layer("two", "image-base", 4),
    )
)


def test_servers_of_one_image_share_its_layers() -> None:
    found = usage_of({ONE: {"one": 10_000, "one-data": 5_000}, TWO: {"two": 10_000}}, LAYERS)
    assert found.servers == {
        ONE: Usage(virtual=15_000, own=237, shared=1000),
        TWO: Usage(virtual=10_000, own=4, shared=1000),
    }
    assert found.total == 1241, "the image's layer once"


def test_layer_that_a_cached_image_stands_on_is_shared_though_one_server_has_it() -> None:
    found = usage_of({TWO: {"two": 10_000}}, LAYERS)
    assert found.servers[TWO] == Usage(virtual=10_000, own=4, shared=1000)


def test_server_without_disks_and_a_disk_that_is_gone_take_nothing() -> None:
    found = usage_of({ONE: {}, TWO: {"gone": 5}}, LAYERS)
    assert (found.total, found.servers[ONE]) == (0, Usage(virtual=0, own=0, shared=0))
    assert found.servers[TWO] == Usage(virtual=5, own=0, shared=0)
