"""A XenAPI failure: what a client reads as ErrorDescription. Every refusal of the simulator is one of these."""

from __future__ import annotations

NULL = "OpaqueRef:NULL"


class Failure(Exception):
    """The error code and its parameters, all text, as `details`: the SDK's XenAPI.Failure has the same attribute."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code, *parameters)
        self.details: list[str] = [code, *parameters]

    def __str__(self) -> str:
        return str(self.details)


class Dropped(ConnectionError):
    """No answer: the connection breaks, as when the host that was asked dies."""


def handle_invalid(class_name: str, ref: str) -> Failure:
    return Failure("HANDLE_INVALID", class_name, ref)


def internal(text: str) -> Failure:
    """XAPI's answer to a wrong type and to its own surprises."""
    return Failure("INTERNAL_ERROR", text)
