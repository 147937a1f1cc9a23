"""One image stream from or to Glance, with time-outs; failures sorted into retryable and permanent.

No header and no URL query ever gets into an error text: they may carry tokens.
"""

import hashlib
import http.client
import json
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Dict, Optional, Union
from urllib.parse import urlsplit

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, RetryableError, number, text
else:
    from celltree_plugin import Params, PermanentError, RetryableError, number, text

_RETRYABLE = (408, 500, 502, 503, 504, 507)
_MD5 = re.compile("[0-9a-f]{32}")
_CHUNK = 64 * 1024
_DATA = "/file"
_FOUR_HOURS = 4 * 3600


class Download:
    """The body of a GET as a stream: read(length). Counts, sums and bounds what passes."""

    def __init__(self, params: Params, max_bytes: int) -> None:
        self._deadline = time.monotonic() + number(params, "max_seconds", _FOUR_HOURS)
        self._expected = params.get("checksum")
        self._connection = _connect(params)
        self._summed = hashlib.md5()
        self._received = 0
        self._max_bytes = max_bytes
        try:
            self._connection.request("GET", _target(params), headers=_headers(params))
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise RetryableError(f"Glance did not answer: {_named(error)}") from error
        if self._response.status != 200:
            status = self._response.status
            self.close()
            raise refusal(status, "download")
        self._length = _length(self._response)
        if self._length is not None and self._length > max_bytes:
            self.close()
            raise PermanentError(f"the image has {self._length} bytes, over the {max_bytes} allowed")

    def read(self, length: int) -> bytes:
        if time.monotonic() > self._deadline:
            raise RetryableError("the download took too long; give more max_seconds or look at the network")
        try:
            data = self._response.read(min(length, 16 * _CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise RetryableError(f"the download broke off: {_named(error)}") from error
        if not data and self._length is not None and self._received < self._length:
            raise RetryableError(f"the download ended after {self._received} of {self._length} bytes")
        self._received += len(data)
        if self._received > self._max_bytes:
            raise PermanentError(f"the image has more than the {self._max_bytes} bytes allowed")
        self._summed.update(data)
        return data

    def verify(self) -> None:
        """Compare the whole stream with the checksums stated by the caller and by Glance; RetryableError if wrong."""
        while self.read(_CHUNK):
            pass
        actual = self._summed.hexdigest()
        stated = [self._expected]
        stated += [self._response.getheader(name) for name in ("content-md5", "x-image-meta-checksum", "etag")]
        for value in stated:
            plain = value.strip('" ').lower() if isinstance(value, str) else ""
            if _MD5.fullmatch(plain) and plain != actual:
                raise RetryableError(f"the checksum is {actual} instead of {plain}")

    def close(self) -> None:
        self._connection.close()


class Upload:
    """A chunked PUT as a file to write to; `finish` returns when Glance has taken all."""

    def __init__(self, params: Params) -> None:
        self._deadline = time.monotonic() + number(params, "max_seconds", _FOUR_HOURS)
        self._connection = _connect(params)
        self._summed = hashlib.md5()
        self._waiting = bytearray()
        self._failure = None  # type: Optional[Exception]
        self.size = 0
        try:
            self._connection.putrequest("PUT", _target(params))
            headers = _headers(params)
            headers.update({"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"})
            for name, value in headers.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()
            # A connection that breaks must not be made anew in the middle of the body.
            self._connection.auto_open = 0
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise RetryableError(f"Glance cannot be reached: {_named(error)}") from error

    def write(self, data: bytes) -> int:
        self._waiting += data
        if len(self._waiting) >= _CHUNK:
            self._send()
        return len(data)

    def _send(self) -> None:
        if self._failure is not None:  # whoever packs for us writes an end when it is stopped
            raise self._failure
        if not self._waiting:
            return
        if time.monotonic() > self._deadline:
            raise RetryableError("the upload took too long; give more max_seconds or look at the network")
        chunk = bytes(self._waiting)
        self._waiting.clear()
        self._summed.update(chunk)
        self.size += len(chunk)
        try:
            self._connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        except (OSError, http.client.HTTPException) as error:
            # Glance refuses while we are still sending: its answer says more than the broken pipe.
            self._failure = self._answered() or RetryableError(f"the upload broke off: {_named(error)}")
            raise self._failure from error

    def _status(self) -> int:
        # Reading the error clears it. A connection that was reset still has what was answered before; the reset would
        # be told first.
        self._connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._connection.getresponse().status

    def _answered(self) -> Optional[Exception]:
        try:
            return refusal(self._status(), "upload")
        except (AttributeError, OSError, http.client.HTTPException):  # the first: the connection was given up
            return None

    def finish(self) -> str:
        """Send the rest and wait for the answer; the MD5 of all that was sent, in hexadecimal digits."""
        self._send()
        try:
            self._connection.send(b"0\r\n\r\n")
            status = self._status()
        except (OSError, http.client.HTTPException) as error:
            # It may have refused before all was sent.
            raise self._answered() or RetryableError(f"Glance did not confirm the upload: {_named(error)}") from error
        if status not in (200, 201, 204):
            raise refusal(status, "upload")
        return self._summed.hexdigest()

    def close(self) -> None:
        self._connection.close()


def describe(params: Params, properties: Dict[str, str]) -> None:
    """Set properties of the image whose data `url` is; once they are set, setting them again changes nothing."""
    target = _target(params)
    if not target.endswith(_DATA):
        raise PermanentError("params.url must be a http or https address of /v2/images/ID/file")
    changes = [{"op": "add", "path": "/" + name, "value": value} for name, value in sorted(properties.items())]
    headers = _headers(params)
    headers["Content-Type"] = "application/openstack-images-v2.1-json-patch"
    connection = _connect(params)
    try:
        connection.request("PATCH", target[: -len(_DATA)], json.dumps(changes).encode(), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise RetryableError(f"Glance did not answer: {_named(error)}") from error
    finally:
        connection.close()
    if status != 200:
        raise refusal(status, "change of the image")


def refusal(status: int, what: str) -> Exception:
    """The error for a status that is not success: 4xx is permanent but for 408, all else may pass."""
    if status == 404:
        return PermanentError(f"ImageNotFound: Glance has no such image for the {what}")
    if status == 204:
        return PermanentError("Glance holds no data for this image yet")
    if 300 <= status < 500 and status not in _RETRYABLE:
        return PermanentError(f"Glance refused the {what} with status {status}")
    return RetryableError(f"Glance failed the {what} with status {status}")


def _connect(params: Params) -> Union[http.client.HTTPConnection, http.client.HTTPSConnection]:
    parts = urlsplit(text(params, "url"))
    timeout = number(params, "timeout", 90)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError("params.url must be a http or https address of /v2/images/ID/file")
    try:
        port = parts.port
    except ValueError as error:
        raise PermanentError("params.url has no valid port") from error
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, port, timeout=timeout)
    context = ssl.create_default_context(cafile=params.get("ca_file"))
    return http.client.HTTPSConnection(parts.hostname, port, timeout=timeout, context=context)


def _target(params: Params) -> str:
    parts = urlsplit(text(params, "url"))
    target = parts.path + ("?" + parts.query if parts.query else "")
    if not target.startswith("/") or any(letter <= " " or letter > "~" for letter in target):
        raise PermanentError("params.url must be a http or https address of /v2/images/ID/file")
    return target


def _headers(params: Params) -> Dict[str, str]:
    headers = params.get("headers", {})
    if not isinstance(headers, dict):
        raise PermanentError("params.headers must be an object of texts")
    for name, value in headers.items():
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name) or re.search(r"[\r\n]", value):
            raise PermanentError("params.headers must be an object of texts without line ends")
    return dict(headers)


def _length(response: Any) -> Optional[int]:
    stated = response.getheader("content-length")
    return int(stated) if stated is not None and stated.isdigit() else None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()
