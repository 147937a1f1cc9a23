"""No secret leaves in a log line: in whatever form a library, a traceback or a peer writes it."""

import io
import json
import logging
import time

import pytest
from oslo_utils.strutils import mask_password

from cells.masking import MaskingFormatter, masked

SECRET = "Canary-7f31c"
SESSION = "OpaqueRef:0badcafe-1234-5678-9abc-0123456789ab"

LEAKS = {
    "amqp URL": f"amqp://user:{SECRET}@host:5672/vhost is away",
    "database URL": f"Can't connect to mysql+pymysql://u:{SECRET}@db.example/x?charset=utf8mb4",
    "token header": f"GET /v2 X-Auth-Token: {SECRET}",
    "token header in a dict": repr({"X-Auth-Token": SECRET, "Accept": "*/*"}),
    "authorization": f"Authorization: Bearer {SECRET}",
    "files": repr({"injected_files": {"/etc/shadow": SECRET.encode()}, "name": "kept"}),
    "files as pairs": json.dumps({"injected_files": [["/etc/x", SECRET]]}),
    "user data": json.dumps({"user_data": SECRET}),
    "admin password": repr({"admin_password": SECRET}),
    "adminPass": json.dumps({"server": {"adminPass": SECRET, "name": "x"}}),
    "JSON in a JSON string": json.dumps({"body": json.dumps({"adminPass": SECRET})}),
    "JSON in JSON in JSON": json.dumps(json.dumps({"body": json.dumps({"user_data": SECRET})})),
    "XML-RPC login": (
        "<methodCall><methodName>session.login_with_password</methodName><params><param><value>root</value></param>"
        f"<param><value><string>{SECRET}</string></value></param></params></methodCall>"
    ),
    "XML-RPC member": f"<member><name>password</name><value><string>{SECRET}</string></value></member>",
    "JSON-RPC login": json.dumps({"method": "session.login_with_password", "params": ["root", SECRET, "2.21"]}),
    "JSON-RPC login, turned": json.dumps({"params": ["root", SECRET], "method": "session.login_with_password"}),
    "a call told": f"session.login_with_password('root', '{SECRET}', '1.0')",
    "keyword": f"connect(user='root', password='{SECRET}')",
    "words": f"rabbit_password={SECRET} rabbit_host=x",
    "settings": f"password: {SECRET}",
}
SESSIONS = {
    "XML-RPC call": f"<params><param><value><string>{SESSION}</string></value></param></params>",
    "JSON-RPC call": json.dumps({"method": "VM.start", "params": [SESSION, "OpaqueRef:1"]}),
    "in a URL": f"PUT /import_raw_vdi?session_id={SESSION}&vdi=OpaqueRef:1",
    "told": f"session {SESSION} has gone",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_secret_is_masked(leak: str) -> None:
    assert SECRET in LEAKS[leak]
    assert SECRET not in masked(LEAKS[leak])


@pytest.mark.parametrize("leak", SESSIONS)
def test_session_reference_is_masked(leak: str) -> None:
    assert SESSION not in masked(SESSIONS[leak])


def test_what_the_usual_filter_misses_is_masked_here() -> None:
    missed = [text for text in (*LEAKS.values(), *SESSIONS.values()) if mask_password(text) == text]
    assert len(missed) > 5
    assert all(masked(text) != text for text in missed)


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01T00:00:00.000Z INFO celltree.api req-1 GET /v2.1/servers/detail 200",
        "dfw-1 req-2 0193: build.prepare: VM OpaqueRef:1234 made on host-1, 2 disks",
        "dfw: lost: amqp://mq.dfw:5672/dfw 403 ACCESS_REFUSED; trying again in about 0.1 s",
        "the password is wrong; see celltree host register --password-file",
        "no secret in this: token refused, password needed",
        "mail to someone@example.org, http://example.org/a:b@c",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert masked(line) == line


def test_traceback_is_masked_as_well() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(MaskingFormatter("%(name)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError(f"cannot open mysql+pymysql://u:{SECRET}@h/s with password={SECRET}")
    except ValueError:
        log.exception("failed with %s", {"adminPass": SECRET})
    assert "Traceback" in out.getvalue()
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize("piece", ["password", '"params":[', "a://", "<params>", "secret='", "files: ["])
def test_long_hostile_line_is_cut_and_keeps_nobody_busy(piece: str) -> None:
    record = logging.makeLogRecord({"msg": f"password='{SECRET}" + piece * 100_000})
    began = time.process_time()
    text = MaskingFormatter().format(record)
    assert time.process_time() - began < 5.0
    assert len(text) < 40_000
    assert SECRET not in text
