"""One request to a front door in this process. Each answer is held against what its route declares."""

import json
from typing import Any

import falcon.testing

from tests.support.answers import refuse_undeclared


def ask(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    *,
    version: str = "",
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
) -> falcon.testing.Result:
    """`body` is sent as JSON unless `raw` is given."""
    sent = dict(headers or {})
    if version:
        sent["OpenStack-API-Version"] = f"compute {version}"
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
        raw = json.dumps(body).encode()
    answer = falcon.testing.TestClient(app).simulate_request(method, path, body=raw, headers=sent)
    refuse_undeclared(method, path, body, answer)
    return answer
