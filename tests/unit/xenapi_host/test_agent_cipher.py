"""The agent's key exchange against the protocol's own numbers and against openssl."""

import hashlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.errors import BadInput
from xenapi_host.agent_cipher import BASE, PRIME, KeyExchange, Shared


def _of(number: int) -> KeyExchange:
    return KeyExchange(lambda length: number.to_bytes(length, "big"))


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.text(max_size=40))
def test_both_sides_come_to_one_secret(ours: int, theirs: int, text: str) -> None:
    here, there = _of(ours), _of(theirs)
    assert there.shared(here.public).decrypt(here.shared(there.public).encrypt(text)) == text


def test_public_key_is_a_power_of_the_base() -> None:
    assert _of(40).public == str(pow(BASE, 42, PRIME))


@pytest.mark.parametrize("public", ["", "0", "1", str(PRIME - 1), str(PRIME), "-5", "0x12", "12a", "١٢"])
def test_key_that_is_none_of_the_group_is_refused(public: str) -> None:
    with pytest.raises(BadInput):
        _of(7).shared(public)


def test_what_was_changed_on_its_way_is_refused() -> None:
    with pytest.raises(BadInput):
        Shared("12345").decrypt(Shared("12346").encrypt("a password that is long enough to show it\n"))


@pytest.mark.parametrize("text", ["", "x", "fifteen letters", "sixteen letters!", "ungewöhnlich\n"])
def test_agrees_with_openssl_and_its_md5_derivation(text: str) -> None:
    secret = str(pow(BASE, 123456789, PRIME))
    command = ["openssl", "enc", "-d", "-aes-128-cbc", "-nosalt", "-md", "md5", "-a", "-A", "-pass", f"pass:{secret}"]
    said = subprocess.run(command, input=Shared(secret).encrypt(text).encode(), capture_output=True, check=True)
    assert said.stdout.decode() == text


def test_secrets_do_not_show_in_representations() -> None:
    exchange = _of(9)
    assert exchange.public not in repr(exchange)
    assert hashlib.md5(b"9", usedforsecurity=False).hexdigest() not in repr(Shared("9"))
