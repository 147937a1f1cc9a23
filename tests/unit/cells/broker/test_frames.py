"""AMQP frames, acknowledgements in runs: pure, so every split and order can be tried."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.broker.amqp.frames import (
    BODY,
    HEADER,
    HEARTBEAT,
    METHOD,
    FrameReader,
    Malformed,
    PublishForm,
    ack,
    confirmed,
    content,
    frame,
)
from cells.broker.amqp.inbox import Acknowledgements

FRAME_MAX = 4096


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_frames_are_the_same_however_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(METHOD, 1, payload) for payload in payloads) + HEARTBEAT
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader(FRAME_MAX)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == [(METHOD, 1, payload) for payload in payloads] + [(8, 0, b"")]


@pytest.mark.parametrize(
    "stream", [b"HTTP/1.1 400 Bad Request\r\n", frame(METHOD, 1, b"xx")[:-1] + b"\0", b"AMQP\0\0\x09\1"]
)
def test_what_is_not_amqp_is_refused_at_once(stream: bytes) -> None:
    with pytest.raises(Malformed):
        FrameReader(FRAME_MAX).feed(stream)


@given(st.binary(max_size=3 * FRAME_MAX), st.integers(1, 2**40))
def test_published_message_is_one_method_one_header_and_bodies_within_the_frame_size(body: bytes, number: int) -> None:
    frames = FrameReader(FRAME_MAX).feed(
        b"".join(PublishForm(1, "celltree.inbox", "north", FRAME_MAX).write(number, body))
    )
    kinds = [kind for kind, _, _ in frames]
    assert kinds == [METHOD, HEADER] + [BODY] * (len(kinds) - 2)
    assert content(frames[1][2]) == (len(body), str(number), "north")
    assert b"".join(payload for _, _, payload in frames[2:]) == body
    assert all(len(payload) <= FRAME_MAX - 8 for _, _, payload in frames)


def test_properties_we_do_not_use_are_passed_over() -> None:
    flags = 0xFFFC
    table = struct.pack(">I", 3) + b"abc"
    values = b"\2ct\2ce" + table + b"\2\0" + b"\1c\1r\1e\4m-id" + bytes(8) + b"\1t\4user\1a\1x"
    assert content(struct.pack(">HHQH", 60, 0, 7, flags) + values) == (7, "m-id", "user")


@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 7), max_size=4))
def test_every_delivery_is_acknowledged_once_and_no_run_ends_in_one_acknowledged_before(
    order: list[int], cuts: list[int]
) -> None:
    acks = Acknowledgements(1)
    open_ = set(range(1, 9))
    edges = [0, *sorted(cuts), 8]
    for start, end in pairwise(edges):
        for _, _, payload in FrameReader(FRAME_MAX).feed(acks.frames(order[start:end])):
            number, multiple = confirmed(payload)
            assert number in open_, "RabbitMQ closes the channel: unknown delivery tag"
            gone = {one for one in open_ if one <= number} if multiple else {number}
            assert gone <= set(order[:end]), "acknowledged what the node has not done"
            open_ -= gone
        assert open_ == set(order[end:])


def test_acknowledgement_on_the_wire() -> None:
    assert ack(1, 5, multiple=True).hex() == "010001" + "0000000d" + "003c0050" + "0000000000000005" + "01" + "ce"
