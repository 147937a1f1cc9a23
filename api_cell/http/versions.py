"""Version documents and microversions.

The highest one declared is 2.61: every answer here has its shape. It is past all steps that openstackclient and
openstacksdk ask for (2.37 networks none and auto, 2.45 createImage's body, 2.47 the flavor inside the server, 2.61
extra specs inside flavors). Beyond it come fields of things this API does not have yet: 2.63 trusted certificates,
2.69 servers of silent cells without their details, 2.71 server groups, 2.73 reasons of locks.
"""

import re

from api_cell.errors import Invalid, NotAcceptable, NotFound
from api_cell.http.call import Answer, Call

LOWEST = 1
HIGHEST = 61
NAMES = ("OpenStack-API-Version", "X-OpenStack-Nova-API-Version")

_VERSION = re.compile(r"2\.(0|[1-9][0-9]{0,3})")


def negotiated(generic: str | None, legacy: str | None) -> int:
    """The microversion of a request, from its two headers; the generic one wins. None asked: the lowest."""
    asked = _of_compute(generic) if generic else None
    asked = (asked or legacy or f"2.{LOWEST}").strip()
    if asked == "latest":
        return HIGHEST
    match = _VERSION.fullmatch(asked)
    if match is None:
        if re.fullmatch(r"[0-9]+\.[0-9]+", asked):
            raise _outside(asked)
        raise Invalid(f"API Version String {asked[:40]} is of invalid format. It must be of format MajorNum.MinorNum.")
    version = int(match[1])
    if not LOWEST <= version <= HIGHEST:
        raise _outside(asked)
    return version


def _outside(asked: str) -> NotAcceptable:
    return NotAcceptable(
        f"Version {asked[:40]} is not supported by the API. Minimum is 2.{LOWEST} and maximum is 2.{HIGHEST}."
    )


def _of_compute(header: str) -> str | None:
    for part in header.split(","):
        words = part.split()
        if len(words) == 2 and words[0].lower() == "compute":
            return words[1]
    return None


def versioned(path: str) -> bool:
    """Whether a path is of the Compute API, which alone has microversions."""
    return path == "/v2.1" or path.startswith("/v2.1/")


def headers(version: int) -> dict[str, str]:
    """What every answer of the Compute API says of its version."""
    return {NAMES[0]: f"compute 2.{version}", NAMES[1]: f"2.{version}", "Vary": ", ".join(NAMES)}


def _compute(base: str) -> dict[str, object]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": f"2.{HIGHEST}",
        "min_version": f"2.{LOWEST}",
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{base}/v2.1/"}],
    }


def root(call: Call) -> Answer:
    return Answer(body={"versions": [_compute(call.base)]})


def compute(call: Call) -> Answer:
    media = [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]
    return Answer(body={"version": {**_compute(call.base), "media-types": media}})


def identity(call: Call) -> Answer:
    """openstackclient asks for it before it lists servers, and asks nothing else of it."""
    return Answer(
        body={
            "version": {
                "id": "v3.14",
                "status": "stable",
                "updated": "2020-04-07T00:00:00Z",
                "links": [{"rel": "self", "href": f"{call.base}/v3/"}],
                "media-types": [
                    {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"},
                ],
            }
        }
    )


def project(call: Call) -> Answer:
    """Without Keystone a project is its name. Clients look one up before they show or set its quota."""
    name = call.params["project"]
    if len(name) > 255 or not (call.caller.admin or name == call.caller.project):
        raise NotFound(f"Could not find project: {name[:255]}.")
    links = {"self": f"{call.base}/v3/projects/{name}"}
    return Answer(body={"project": {"id": name, "name": name, "enabled": True, "is_domain": False, "links": links}})


def image(call: Call) -> Answer:
    links = [{"rel": "self", "href": f"{call.base}/image/v2/"}]
    return Answer(body={"versions": [{"id": "v2.5", "status": "CURRENT", "links": links}]})
