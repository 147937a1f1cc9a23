"""Logs without secrets. Nobody here logs a secret on purpose; a library's message, a traceback or a peer's answer may
hold one all the same. So each whole line is looked through as it leaves, exception and all.

oslo.utils' mask_password does not know URLs with logins, headers, session references, files or user data, JSON within
a JSON string, or the parameters of XML-RPC; this does.
"""

import logging
import re

MASK = "***"
LONGEST = 32 * 1024

_QUOTE = r"""\\*["']"""  # also escaped, at any depth: JSON within a string
_NAMES = (
    r"admin_?pass(?:word)?|(?:[a-z0-9_]*_)?passw(?:or)?d|[a-z0-9_]*_pass|passphrase|secret(?:_key)?|private_key"
    r"|[a-z0-9_-]*token|authorization|user_data|image_secret|session_id|session_ref"
)
_LISTS = r"injected_files|personality|files"

_MOST = 2000
"""How far a secret is followed; without a limit a hostile text would take quadratic time."""

# Whether to look closer at all: most lines hold none of these.
_HINT = re.compile(
    r"://|OpaqueRef|pass|secret|token|authorization|user_data|private_key|session|files|personality", re.I
)
_LOGIN = re.compile(r"""(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@"'<>]{0,128}):[^\s"'<>]{0,256}@(?=[\w.\[-])""", re.I)
_QUOTED = re.compile(
    rf"""(\b(?:{_NAMES})(?:{_QUOTE})?\s{{0,9}}[:=,]\s{{0,9}}b?)({_QUOTE})(?:(?!\2).){{0,{_MOST}}}(?:\2|\Z)?""",
    re.I | re.S,
)
_BARE = re.compile(
    rf"""(\b(?:{_NAMES})(?:{_QUOTE})?\s{{0,9}}[:=]\s{{0,9}})(?!b?\\*["']|[\[{{*])(?:bearer |basic )?"""
    r"""[^\s,;&)}\]"'<>]+""",
    re.I,
)
_LIST = re.compile(
    rf"""(\b(?:{_LISTS})(?:{_QUOTE})?\s{{0,9}}[:=]\s{{0,9}})"""
    rf"""(?:\[[^\]]{{0,{_MOST}}}\]*|\{{[^}}]{{0,{_MOST}}}\}}?|\([^)]{{0,{_MOST}}}\)?)""",
    re.I,
)
_XML_MEMBER = re.compile(
    rf"""(<name>\s{{0,9}}(?:{_NAMES}|{_LISTS})\s{{0,9}}</name>\s{{0,9}}<value>).{{0,{_MOST}}}?(</value>|\Z)""",
    re.I | re.S,
)
_XML_LOGIN = re.compile(
    rf"(<methodName>session\.login[^<]{{0,40}}</methodName>\s{{0,9}}<params>).{{0,{_MOST}}}?(</params>|\Z)", re.S
)
_LOGIN_CALL = re.compile(
    rf"""(session\.(?:login|slave_local_login)\w{{0,40}}(?:{_QUOTE})?\s{{0,9}}[,(]\s{{0,9}}"""
    rf"""(?:{_QUOTE}params{_QUOTE}\s{{0,9}}:\s{{0,9}})?)[\[(]?[^\])]{{0,{_MOST}}}"""
)
_LOGIN_PARAMS = re.compile(
    rf"""({_QUOTE}params{_QUOTE}\s{{0,9}}:\s{{0,9}}\[)[^\]]{{0,{_MOST}}}(\].{{0,200}}?session\.login)""", re.S
)
_SESSION = re.compile(
    r"""(<params>\s{0,9}<param>\s{0,9}<value>(?:<string>)?|["']params["']\s{0,9}:\s{0,9}\[\s{0,9}["']"""
    r"""|\bsession\W{1,4}(?:ref\W{1,4})?)OpaqueRef:[0-9a-f-]+""",
    re.I,
)


def masked(text: str) -> str:
    """The text with what looks like a secret replaced."""
    if _HINT.search(text) is None:
        return text
    text = _LOGIN.sub(rf"\1:{MASK}@", text)
    text = _XML_LOGIN.sub(rf"\1{MASK}\2", text)
    text = _LOGIN_PARAMS.sub(rf"\1{MASK}\2", text)
    text = _LOGIN_CALL.sub(rf"\1{MASK}", text)
    text = _XML_MEMBER.sub(rf"\1{MASK}\2", text)
    text = _SESSION.sub(rf"\1{MASK}", text)
    text = _LIST.sub(rf"\1{MASK}", text)
    text = _QUOTED.sub(rf"\1\2{MASK}\2", text)
    return _BARE.sub(rf"\1{MASK}", text)


class MaskingFormatter(logging.Formatter):
    """Formats as it is told, masks the whole of it, and cuts what no line of a log should be."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        cut = f"... ({len(text)} characters)" if len(text) > LONGEST else ""
        return masked(text[:LONGEST]) + cut
