"""What is overheard as a live secret, and in which forms a secret is found."""

import base64
import json
import xmlrpc.client

from tests.support.canary import KEPT, Overheard, found

TOKEN = f"celltree1.11111111-1111-1111-1111-111111111111.read.1750000000.{'x_-' * 14}x"
SESSION, VM = (f"OpaqueRef:{digit * 8}-1111-1111-1111-111111111111" for digit in "ab")


def call(session: str, method: str = "host.call_plugin") -> bytes:
    headers = json.dumps({"params": json.dumps({"headers": {"X-Auth-Token": TOKEN}})})
    return b"POST / HTTP/1.1\r\n\r\n" + xmlrpc.client.dumps((session, VM, headers), method).encode()


def test_image_token_and_session_of_a_call_are_overheard_and_no_other_reference() -> None:
    heard = Overheard()
    heard(call(SESSION))
    heard(call(SESSION))
    assert (list(heard.sessions), heard.words[-1:]) == ([SESSION], (SESSION,))
    heard(f"GET /v2/images HTTP/1.1\r\nX-Auth-Token: {TOKEN}\r\n\r\n".encode())
    assert list(heard.tokens) == [TOKEN]


def test_only_the_newest_are_kept() -> None:
    heard = Overheard()
    for number in range(KEPT + 1):
        heard(call(f"OpaqueRef:{number:08}-1111-1111-1111-111111111111"))
    assert len(heard.sessions) == KEPT
    assert heard.sessions[0] == "OpaqueRef:00000001-1111-1111-1111-111111111111"


def test_secret_is_found_in_each_form_it_may_have_been_put_into() -> None:
    plain = TOKEN.encode()
    forms = [plain, plain.hex().encode(), plain.hex().upper().encode(), base64.b64encode(b"ab" + plain + b"c")]
    assert all(found(TOKEN, b"before " + form + b" after") for form in forms)
    assert not found(TOKEN, plain[:-1])
