"""The WSGI application: ROUTES behind Falcon. In the order a request meets it: limits on what it may carry, request id,
microversion, who asks, the route's rule, its body's schema, the handler; and back, errors turned into answers.

The only module that imports Falcon, and the only one that catches everything.
"""

import json
import logging
import math
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import IO, Any, cast

import falcon

from api_cell.errors import (
    BadMediaType,
    BadMethod,
    Forbidden,
    Invalid,
    NotFound,
    Rejected,
    TooLarge,
    TooMany,
)
from api_cell.http import bodies, versions
from api_cell.http.auth import Gate
from api_cell.http.call import Answer, Call, Query, Route, Rule
from api_cell.http.metrics import Metrics
from api_cell.http.rates import Rates
from api_cell.http.routes import ROUTES
from api_cell.http.signing import ImageTokens
from api_cell.images import FolderImages, Images
from api_cell.service.api import Api, Caller
from api_cell.settings import Auth, Settings
from cells.errors import BadInput, CelltreeError, Temporary
from cells.ports import Clock, NewId, Store

LOG = logging.getLogger("celltree.api")

_REQUEST_ID = re.compile(r"req-[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_LONGEST_URL = 8192
_MOST_QUERY = 200
_NOBODY = Caller(user="", project="")


def make_app(
    settings: Settings,
    store: Store,
    images: Images,
    poke: Callable[[], None],
    clock: Clock,
    ids: NewId,
    keep: Callable[[bytes], bytes] | None = None,
) -> "Application":
    """The WSGI callable of one API cell. Where `images` is the folder store, its Glance routes are served too."""
    api = Api(settings=settings, store=store, images=images, poke=poke, clock=clock, ids=_one_at_a_time(ids), keep=keep)
    return Application(api)


def _one_at_a_time(ids: NewId) -> NewId:
    """Requests run in threads, and cells.names.Ids is one thread's."""
    lock = threading.Lock()

    def new_id() -> bytes:
        with lock:
            return ids()

    return new_id


class Application:
    """A WSGI callable. `tokens` makes the tokens that leaves need to move images."""

    def __init__(self, api: Api, routes: Iterable[Route] = ROUTES) -> None:
        settings = api.settings
        self.api = api
        self.tokens = ImageTokens(settings.image_secret, api.clock, settings.image_token_lifetime)
        self.metrics = Metrics()
        self._folder = api.images if isinstance(api.images, FolderImages) else None
        self._gate = Gate(settings, self.tokens)
        self._rates = Rates(settings.limits.requests_per_second, settings.limits.burst)
        app = falcon.App(middleware=[_Envelope(self.metrics)])
        app.req_options.strip_url_path_trailing_slash = True
        app.req_options.keep_blank_qs_values = True
        app.add_error_handler(Exception, _failed)
        app.add_error_handler(falcon.HTTPError, _refused_by_falcon)
        by_path: dict[str, dict[str, list[Route]]] = {}
        for route in routes:
            by_path.setdefault(route.path, {}).setdefault(route.method, []).append(route)
        for path, methods in by_path.items():
            app.add_route(path, _Resource(self, methods))
        self._wsgi = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._wsgi(environ, start_response)

    def answer(self, routes: list[Route], req: falcon.Request, params: dict[str, str]) -> Answer:
        """What one request gets; `routes` are those of its path and method."""
        version: int = req.context.version
        here = [route for route in routes if route.serves(version)]
        if not here:
            raise NotFound(f"The resource is not there in microversion 2.{version}; ask for a later one")
        open_ = here[0].rule is Rule.OPEN
        caller = _NOBODY if open_ else self._gate.caller(req.env)
        if caller.project and (wait := self._rates.take(caller.project)):
            raise TooMany("This project sends more requests than it may; ask again later", retry_after=wait)
        query = _query(req)
        body: Any = None
        if any(route.schema is not None for route in here):
            body = self._body(req, here[0].media)
        route = _of_action(here, body)
        _may(route, caller)
        schema = route.schema_at(version)
        if schema is not None:
            bodies.check(body, schema)
        elif not route.streams and (req.content_length or 0) > 0:
            self._drop_body(req)
        if route.streams:
            _check_media(req, route.media)
        call = Call(
            api=self.api,
            tokens=self.tokens,
            folder=self._folder,
            metrics=self.metrics,
            caller=caller,
            version=version,
            request_id=req.context.request_id,
            chosen=req.context.chosen,
            params=params,
            query=query,
            base=self.api.settings.public_url.rstrip("/") or req.prefix,
            path=req.path,
            body=body,
            stream=_input(req) if route.streams else None,
            length=req.content_length,
        )
        return route.handler(call)

    def _body(self, req: falcon.Request, media: tuple[str, ...]) -> Any:
        _check_media(req, media)
        largest = self.api.settings.largest_body
        if (req.content_length or 0) > largest:
            raise _too_large(largest)
        data = _input(req).read(largest + 1)
        if len(data) > largest:
            raise _too_large(largest)
        if not data:
            raise Invalid("Malformed request body: it is empty; send JSON")
        return bodies.parse(data)

    def _drop_body(self, req: falcon.Request) -> None:
        """A body nobody asked for is read away, up to the limit, so that the connection stays usable."""
        largest = self.api.settings.largest_body
        if (req.content_length or 0) > largest:
            raise _too_large(largest)
        _input(req).read(largest)

    @property
    def realm(self) -> str:
        """What a client that is not logged in is told; empty where nobody has to."""
        settings = self.api.settings
        match settings.auth:
            case Auth.HTTP_BASIC:
                return 'Basic realm="celltree"'
            case Auth.KEYSTONE:
                return f'Keystone uri="{settings.keystone.url}"'
        return ""


def _input(req: falcon.Request) -> IO[bytes]:
    """The body. One of unknown length (chunked) is read to its end where the server marks that end."""
    if req.content_length is None and req.env.get("wsgi.input_terminated"):
        return cast(IO[bytes], req.stream)
    return cast(IO[bytes], req.bounded_stream)


def _too_large(largest: int) -> TooLarge:
    return TooLarge(f"The request body is over the limit of {largest} bytes; send less")


def _check_media(req: falcon.Request, media: tuple[str, ...]) -> None:
    sent = (req.content_type or "").partition(";")[0].strip().lower()
    if sent not in media:
        raise BadMediaType(f"Unsupported Content-Type {sent[:80]!r}; send {' or '.join(media)}")


def _of_action(here: list[Route], body: Any) -> Route:
    if not here[0].action:
        return here[0]
    if not isinstance(body, dict) or len(body) != 1:
        raise Invalid("Malformed request body: an action is an object with one key, its name")
    name = next(iter(body))
    for route in here:
        if route.action == name:
            return route
    raise Invalid(f"There is no such action: {name[:80]}. There are: {', '.join(sorted(r.action for r in here))}")


def _may(route: Route, caller: Caller) -> None:
    """The route's rule."""
    if route.rule is Rule.OPEN:
        return
    if caller.image and route.rule is not Rule.IMAGE:
        raise Forbidden("An image token is good for the data of its image only")
    if caller.reader and route.method != "GET":
        raise Forbidden("Policy doesn't allow a reader to change anything; ask for another role in this project")
    if route.rule is Rule.ADMIN and not caller.admin:
        raise Forbidden("Policy doesn't allow this to be performed; ask an administrator")


def _query(req: falcon.Request) -> Query:
    if len(req.uri) > _LONGEST_URL:
        raise Invalid(f"The URL is longer than {_LONGEST_URL} characters; ask for less at a time")
    pairs: list[tuple[str, str]] = []
    for name, value in req.params.items():
        pairs.extend((name, item) for item in (value if isinstance(value, list) else [value]))
    if len(pairs) > _MOST_QUERY:
        raise Invalid(f"More than {_MOST_QUERY} query parameters; ask for less at a time")
    for name, value in pairs:
        if "\ufffd" in value or "\ufffd" in name or "\0" in value:
            raise Invalid(f"{name[:80]}: the query string is not UTF-8")
    return Query(pairs)


class _Resource:
    """One path, for Falcon: a responder for each of its methods."""

    def __init__(self, app: Application, methods: dict[str, list[Route]]) -> None:
        for method, routes in methods.items():
            setattr(self, f"on_{method.lower()}", _responder(app, routes))


def _responder(app: Application, routes: list[Route]) -> Callable[..., None]:
    def respond(req: falcon.Request, resp: falcon.Response, **params: str) -> None:
        if app.realm:
            req.context.realm = app.realm
        _write(resp, app.answer(routes, req, params))

    return respond


def _write(resp: falcon.Response, answer: Answer) -> None:
    resp.status = answer.code
    for name, value in answer.headers.items():
        resp.set_header(name, value)
    if answer.stream is not None:
        resp.content_type = answer.media
        resp.set_stream(cast(Any, answer.stream), answer.length)
    elif isinstance(answer.body, bytes):
        resp.content_type = answer.media
        resp.data = answer.body
    elif answer.body is not None:
        resp.content_type = answer.media
        resp.data = json.dumps(answer.body, ensure_ascii=False).encode()


class _Envelope:
    """What every request and answer has, whatever it is about: request id, microversion, metrics, one line of log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        context = req.context
        context.began = self._metrics.begin()
        asked = req.get_header("X-Openstack-Request-Id") or ""
        context.chosen = _REQUEST_ID.fullmatch(asked) is not None
        context.request_id = asked if context.chosen else f"req-{uuid.uuid4()}"
        context.version = versions.LOWEST
        if versions.versioned(req.path):
            generic, legacy = (req.get_header(name) for name in versions.NAMES)
            context.version = versions.negotiated(generic, legacy)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        context = req.context
        request_id = getattr(context, "request_id", "")
        resp.set_header("X-Openstack-Request-Id", request_id)
        resp.set_header("X-Compute-Request-Id", request_id)
        if versions.versioned(req.path):
            for name, value in versions.headers(context.version).items():
                resp.set_header(name, value)
        path = req.uri_template or "none"
        self._metrics.end(context.began, req.method if resource is not None else "ANY", path, str(resp.status_code))
        LOG.info("%s %s %s %s", request_id, req.method, req.path, resp.status_code)


# --- errors as answers ---


def _fault(resp: falcon.Response, code: int, key: str, message: str) -> None:
    resp.status = code
    resp.content_type = "application/json"
    resp.data = json.dumps({key: {"code": code, "message": message}}, ensure_ascii=False).encode()


def _failed(req: falcon.Request, resp: falcon.Response, error: BaseException, params: dict[str, Any]) -> None:
    """Every error of ours and of nobody's, as an OpenStack client knows it."""
    if isinstance(error, Rejected):
        _fault(resp, error.code, error.key, str(error))
        if error.code == 401 and "realm" in req.context:
            resp.set_header("WWW-Authenticate", req.context.realm)
        if error.retry_after is not None:
            resp.set_header("Retry-After", str(max(1, math.ceil(error.retry_after))))
        elif error.code == 413:
            resp.set_header("Retry-After", "0")
    elif isinstance(error, BadInput):
        _fault(resp, 400, "badRequest", str(error))
    elif isinstance(error, Temporary):
        LOG.warning("%s %s: %s", req.context.request_id, type(error).__name__, error)
        _fault(resp, 503, "serviceUnavailable", "The service cannot do this at the moment; try again")
        resp.set_header("Retry-After", str(max(1, round(error.retry_after))))
    else:
        level = logging.WARNING if isinstance(error, CelltreeError) else logging.ERROR
        LOG.log(level, "%s failed", req.context.request_id, exc_info=error)
        _fault(resp, 500, "computeFault", f"Unexpected API Error; tell the operator {req.context.request_id}")


_KEYS = {
    400: "badRequest",
    404: "itemNotFound",
    405: "badMethod",
    413: "overLimit",
    415: "badMediaType",
}


def _refused_by_falcon(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    code = error.status_code
    text = {
        404: "The resource could not be found.",
        405: str(BadMethod("The method is not allowed for this resource.")),
    }.get(code, error.description or error.title or "The request cannot be served.")
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)
    _fault(resp, code, _KEYS.get(code, "computeFault"), text)
