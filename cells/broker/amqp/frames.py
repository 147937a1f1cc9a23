"""AMQP 0-9-1 frames as bytes, for the paths that every message takes: publish, deliver, acknowledge, confirm.

py-amqp makes the connection and every rare call; it writes and reads one frame at a time with several system calls and
a dozen objects each. Here many messages become one buffer for one `sendall`, and one `recv` gives many frames. Pure.
"""

from struct import Struct

from cells.errors import Temporary

METHOD, HEADER, BODY, BEAT = 1, 2, 3, 8
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
END = b"\xce"
FRAME_ROOM = 8

CONNECTION_CLOSE_OK = b"\x00\x0a\x00\x33"
CONNECTION_BLOCKED = b"\x00\x0a\x00\x3c"
CONNECTION_UNBLOCKED = b"\x00\x0a\x00\x3d"
BASIC_PUBLISH = b"\x00\x3c\x00\x28"
BASIC_RETURN = b"\x00\x3c\x00\x32"
BASIC_DELIVER = b"\x00\x3c\x00\x3c"
BASIC_ACK = b"\x00\x3c\x00\x50"
BASIC_NACK = b"\x00\x3c\x00\x78"

_FRAME = Struct(">BHI")
_CONTENT = Struct(">HHQH")
_TAG_AND_BITS = Struct(">QB")
_MANDATORY = b"\x01"
_PERSISTENT = b"\x02"
_HAS_DELIVERY_MODE, _HAS_MESSAGE_ID, _HAS_USER = 0x1000, 0x0080, 0x0010

Frame = tuple[int, int, bytes]


class Malformed(Temporary):
    """What came is not AMQP; only a new connection helps."""


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + END


def short(text: str) -> bytes:
    """AMQP's shortstr: a length octet and at most 255 octets."""
    data = text.encode()
    return bytes((len(data),)) + data


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    return frame(METHOD, channel, BASIC_ACK + _TAG_AND_BITS.pack(tag, multiple))


class PublishForm:
    """Everything about publishing to one exchange that is the same for each message, written once."""

    def __init__(self, channel: int, exchange: str, user: str, frame_max: int) -> None:
        self._channel = channel
        self._chunk = frame_max - FRAME_ROOM
        self._method = frame(METHOD, channel, BASIC_PUBLISH + b"\0\0" + short(exchange) + short("") + _MANDATORY)
        self._user = short(user) if user else b""
        self._flags = _HAS_DELIVERY_MODE | _HAS_MESSAGE_ID | (_HAS_USER if user else 0)

    def write(self, number: int, body: bytes) -> list[bytes]:
        """The frames of one persistent, mandatory message; its number is its message id, to know it if returned."""
        properties = _PERSISTENT + short(str(number)) + self._user
        header = _CONTENT.pack(60, 0, len(body), self._flags) + properties
        parts = [self._method, _FRAME.pack(HEADER, self._channel, len(header)), header, END]
        for start in range(0, len(body), self._chunk):
            part = body[start : start + self._chunk]
            parts += (_FRAME.pack(BODY, self._channel, len(part)), part, END)
        return parts


class FrameReader:
    """Cuts what arrives into frames; keeps the beginning of a frame until its end has come."""

    def __init__(self, frame_max: int) -> None:
        self._frame_max = frame_max
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        data = self._rest + chunk if self._rest else chunk
        frames: list[Frame] = []
        offset, size = 0, len(data)
        while size - offset >= FRAME_ROOM:
            kind, channel, length = _FRAME.unpack_from(data, offset)
            end = offset + 7 + length
            if length > self._frame_max:
                raise Malformed(f"the broker sent a frame of {length} bytes, over the agreed {self._frame_max}")
            if end >= size:
                break
            if data[end] != 0xCE:
                raise Malformed("the broker sent a frame without an end: is something else listening on this port?")
            frames.append((kind, channel, data[offset + 7 : end]))
            offset = end + 1
        self._rest = data[offset:]
        return frames


def delivered(payload: bytes) -> tuple[int, bool]:
    """The delivery tag and the redelivered flag of a basic.deliver."""
    tag, redelivered = _TAG_AND_BITS.unpack_from(payload, 5 + payload[4])
    return tag, bool(redelivered & 1)


def confirmed(payload: bytes) -> tuple[int, bool]:
    """The number of a basic.ack or basic.nack, and whether all before it are meant too."""
    number, bits = _TAG_AND_BITS.unpack_from(payload, 4)
    return number, bool(bits & 1)


def content(payload: bytes) -> tuple[int, str, str]:
    """Size of the body, message id and user of a content header. Other properties are passed over."""
    _, _, size, flags = _CONTENT.unpack_from(payload)
    if flags & 1:
        raise Malformed("the broker sent a content header with more property flags than AMQP 0-9-1 has")
    offset = _CONTENT.size
    message_id = user = ""
    for bit in range(15, 2, -1):
        if not flags >> bit & 1:
            continue
        if bit == 13:
            offset += 4 + int.from_bytes(payload[offset : offset + 4], "big")
        elif bit in (12, 11):
            offset += 1
        elif bit == 6:
            offset += 8
        else:
            end = offset + 1 + payload[offset]
            if bit == 7:
                message_id = payload[offset + 1 : end].decode(errors="replace")
            elif bit == 4:
                user = payload[offset + 1 : end].decode(errors="replace")
            offset = end
    return size, message_id, user
