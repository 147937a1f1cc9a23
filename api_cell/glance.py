"""Images held by a Glance (v2) that is not ours: the production shape, and API cells that share one folder of images.

Few calls, each with a time limit; nothing is cached, since an image's status changes behind our back.
"""

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from api_cell.errors import Forbidden, NotFound
from api_cell.images import FIELDS, Image, ref_to
from cells.errors import BadInput, Permanent, Temporary
from cells.model import ImageRef
from cells.names import SECOND, Instant

TIMEOUT_SECONDS = 20.0
_LARGEST_ANSWER = 8 << 20
_MOST_PAGES = 100


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a redirect would carry our credentials to wherever it says."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _NotBelieved(Permanent):
    """Who we say we are was not believed."""


class GlanceImages:
    """`url`: the endpoint, without /v2. `headers` gives what proves who we are (an X-Auth-Token, or HTTP basic
    authentication), asked before each call, as tokens expire; `forget` is told when that was not believed, and what
    `headers` gives then is tried once. `authorities`: PEM, of those who sign the endpoint's certificate; empty: the
    system's."""

    def __init__(
        self,
        url: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        forget: Callable[[], None] | None = None,
        authorities: str = "",
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"image service {url!r}: write the endpoint as http://host:port or https://..., without /v2")
        self.url = url.rstrip("/")
        self._headers = headers
        self._forget = forget
        # No proxy from the environment either: the image service is a neighbour.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _Stay()]
        if authorities:
            handlers.append(urllib.request.HTTPSHandler(context=_trusting(authorities)))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, image_id: str) -> Image | None:
        try:
            return _image(self._ask("GET", _path(image_id)))
        except NotFound:
            return None

    def is_member(self, image_id: str, project: str) -> bool:
        try:
            self._ask("GET", f"{_path(image_id)}/members/{urllib.parse.quote(project, safe='')}")
        except NotFound:
            return False
        return True

    def find(self, name: str) -> tuple[Image, ...]:
        return self._all_with({"name": name})

    def having(self, properties: Mapping[str, str], status: str = "") -> tuple[Image, ...]:
        return self._all_with({**properties, "status": status} if status else properties)

    def _all_with(self, wanted: Mapping[str, str]) -> tuple[Image, ...]:
        found: list[Image] = []
        path = "/v2/images?" + urllib.parse.urlencode(wanted)
        for _ in range(_MOST_PAGES):
            page = self._ask("GET", path)
            found.extend(_image(record) for record in page["images"])
            if "next" not in page:
                break
            path = str(page["next"])
        return tuple(found)

    def create(
        self,
        *,
        name: str,
        owner: str,
        disk_format: str = "",
        container_format: str = "",
        min_disk: int = 0,
        properties: dict[str, str] | None = None,
    ) -> str:
        asked = {
            **(properties or {}),
            "name": name,
            "owner": owner,
            "disk_format": disk_format or None,
            "container_format": container_format or None,
            "min_disk": min_disk,
        }
        return str(self._ask("POST", "/v2/images", asked)["id"])

    def ref(self, image_id: str) -> ImageRef:
        image = self.get(image_id)
        if image is None:
            raise NotFound(f"No image found with ID {image_id}")
        return ref_to(image, self.url)

    def delete(self, image_id: str) -> None:
        try:
            self._ask("DELETE", _path(image_id))
        except NotFound:
            return

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return self._asked(method, path, body)
        except _NotBelieved:
            if self._forget is None:
                raise
            self._forget()
            return self._asked(method, path, body)

    def _asked(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", **self._headers()}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read(_LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, method, path) from None
        except (OSError, http.client.HTTPException) as error:
            raise Temporary(f"the image service at {self.url} is out of reach: {error}") from None
        if len(text) > _LARGEST_ANSWER:
            raise Permanent(f"the image service's answer to {method} {path} is over {_LARGEST_ANSWER} bytes")
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise Temporary(
                f"the image service's answer to {method} {path} is not JSON; is {self.url} Glance?"
            ) from None


def _trusting(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise BadInput(f"image service: authorities {authorities} cannot be used: {error.strerror or error}") from None


def _path(image_id: str) -> str:
    return f"/v2/images/{urllib.parse.quote(image_id, safe='')}"


def _refusal(code: int, method: str, path: str) -> Exception:
    if code == 404:
        return NotFound("No such image")
    if code == 401:
        return _NotBelieved(
            f"the image service answers 401 to {method} {path}: it does not know us; look at our credentials"
        )
    if code == 403 and method == "DELETE":
        return Forbidden("The image is protected and cannot be deleted")
    if code in (408, 429) or code >= 500:
        return Temporary(f"the image service answers {code} to {method} {path}")
    return Permanent(f"the image service refuses {method} {path} with {code}; look at its log and our credentials")


_SHOWN_BESIDE = frozenset(
    {
        *("id", "owner", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at"),
        *("updated_at", "self", "file", "schema", "locations", "direct_url", "stores"),
    }
)


def _image(record: Mapping[str, Any]) -> Image:
    """Glance's JSON as our value."""
    return Image(
        id=str(record["id"]),
        name=record.get("name") or "",
        owner=record.get("owner") or "",
        created=_instant(record.get("created_at")),
        updated=_instant(record.get("updated_at")),
        status=str(record["status"]),
        visibility=record.get("visibility") or "shared",
        disk_format=record.get("disk_format") or "",
        container_format=record.get("container_format") or "",
        size=record.get("size"),
        checksum=record.get("checksum") or "",
        sha512=(record.get("os_hash_value") or "") if record.get("os_hash_algo") == "sha512" else "",
        min_disk=record.get("min_disk") or 0,
        min_ram=record.get("min_ram") or 0,
        protected=bool(record.get("protected")),
        hidden=bool(record.get("os_hidden")),
        tags=tuple(record.get("tags") or ()),
        properties={
            key: str(value)
            for key, value in record.items()
            if key not in FIELDS and key not in _SHOWN_BESIDE and value is not None
        },
    )


def _instant(text: Any) -> Instant:
    return int(datetime.fromisoformat(text).timestamp() * SECOND) if text else 0
