"""One request to a front door in this process."""

import json
from typing import Any

import falcon.testing


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
    return falcon.testing.TestClient(app).simulate_request(method, path, body=raw, headers=sent)
