"""Which layers of a disk its storage will merge, told from the records of VDIs."""

from xenapi_host.layers import Layer, chain_of, layers_of, to_be_merged


def _layers(*lines: tuple[str, str, bool]) -> dict[str, Layer]:
    """(uuid, parent, hidden)"""
    return {uuid: Layer(uuid=uuid, parent=parent, hidden=hidden, size=1) for uuid, parent, hidden in lines}


def test_hidden_layer_without_a_sibling_is_merged_into_its_parent() -> None:
    layers = _layers(("base", "", True), ("old", "base", True), ("disk", "old", False), ("snap", "old", False))
    assert chain_of("snap", layers) == ("snap", "old", "base")
    assert to_be_merged(("snap", "old", "base"), layers) == ("old",)


def test_layer_that_others_share_the_parent_of_stays() -> None:
    layers = _layers(("base", "", True), ("image", "base", False), ("old", "base", True), ("disk", "old", False))
    assert to_be_merged(("disk", "old", "base"), layers) == ()


def test_visible_disks_and_bases_are_never_merged_and_strangers_are_passed_over() -> None:
    layers = _layers(("base", "", True), ("disk", "base", False))
    assert to_be_merged(("disk", "base", "elsewhere"), layers) == ()
    assert chain_of("gone", layers) == ()


def test_chain_that_loops_ends() -> None:
    assert chain_of("a", _layers(("a", "b", True), ("b", "a", True))) == ("a", "b")


def test_layers_are_read_off_records() -> None:
    record = {"uuid": "u", "managed": False, "sm_config": {"vhd-parent": "p"}, "physical_utilisation": "5"}
    assert layers_of([record]) == {"u": Layer(uuid="u", parent="p", hidden=True, size=5)}
