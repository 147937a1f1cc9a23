"""A client of the Compute API, as small as the demo needs: JSON in and out over urllib, waiting for a status."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cells.errors import Permanent

MICROVERSION = "2.47"
_POLL_SECONDS = 0.05


class RestFailed(Permanent):
    """The API answered with an error; the text is its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"HTTP {code}: {text}")
        self.code = code


class Rest:
    """One API endpoint; `base` is http://host:port, `headers` go with every call (credentials)."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None) -> None:
        self.base = base
        self._headers = dict(headers or {})

    def compute(self, method: str, path: str, body: Any = None) -> Any:
        """A call under /v2.1; the decoded body of the answer, or None where there is none."""
        headers = {"OpenStack-API-Version": f"compute {MICROVERSION}"}
        return self._json(method, "/v2.1" + path, body, headers)

    def image(self, method: str, path: str, body: Any = None) -> Any:
        """A call under the image service's /v2."""
        return self._json(method, "/image/v2" + path, body, {})

    def upload(self, image: str, source: Path) -> None:
        """The bytes of a queued image."""
        with source.open("rb") as stream:
            length = str(source.stat().st_size)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": length}
            self._call("PUT", f"/image/v2/images/{image}/file", stream, headers)

    def download(self, image: str, target: Path) -> None:
        """The bytes of an active image, into a file."""
        target.write_bytes(self._call("GET", f"/image/v2/images/{image}/file", None, {}))

    def wait(self, look: Callable[[], Any], done: Callable[[Any], bool], seconds: float, what: str) -> Any:
        """Look until done; Permanent when that takes too long."""
        end = time.monotonic() + seconds
        while True:
            seen = look()
            if done(seen):
                return seen
            if time.monotonic() > end:
                raise Permanent(f"{what} took more than {seconds:.0f} s; last seen: {seen}")
            time.sleep(_POLL_SECONDS)

    def _json(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers = {**headers, "Content-Type": "application/json"}
        answer = self._call(method, path, data, headers)
        return json.loads(answer) if answer else None

    def _call(self, method: str, path: str, data: Any, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self.base + path, data=data, headers=self._headers | headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                raise RestFailed(error.code, error.read().decode(errors="replace")[:500]) from None
        except urllib.error.URLError as error:
            raise Permanent(f"{self.base} does not answer: {error.reason}") from None
