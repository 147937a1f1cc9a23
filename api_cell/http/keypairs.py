"""/os-keypairs: parse -> api_cell.service.keypairs -> views."""

from typing import Any

from api_cell.errors import Forbidden, Invalid
from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.http.paging import page_size
from api_cell.service import keypairs


def _user(call: Call, asked: str) -> str:
    """Whose key pairs: the caller's, or from 2.10 on another user's for an administrator."""
    if not asked or asked == call.caller.user or call.version < 10:
        return call.caller.user
    if not call.caller.admin:
        raise Forbidden("user_id: only an administrator may ask for another user's key pairs; leave it out")
    return asked


def names(call: Call) -> Answer:
    user = _user(call, call.query.text("user_id"))
    if call.version < 35:
        found = keypairs.find(call.api, user)
        return Answer(body={"keypairs": [{"keypair": views.keypair(row, call.version)} for row in found]})
    size = page_size(call)
    found = keypairs.find(call.api, user, marker=call.query.text("marker"), limit=size)
    body: dict[str, Any] = {"keypairs": [{"keypair": views.keypair(row, call.version)} for row in found]}
    if found and len(found) == size:
        body["keypairs_links"] = views.next_link(call.base, "/v2.1/os-keypairs", call.query.pairs(), found[-1].name)
    return Answer(body=body)


def create(call: Call) -> Answer:
    body = call.body["keypair"]
    if body.get("type", "ssh") != "ssh":
        raise Invalid("keypair.type: only ssh is supported; leave it out")
    if "public_key" not in body:
        raise Invalid("keypair.public_key: is required; make a key pair yourself (ssh-keygen) and give its public half")
    user = _user(call, body.get("user_id", ""))
    row = keypairs.create(call.api, user, body["name"], body["public_key"])
    view = {**views.keypair(row, call.version), "user_id": row.user}
    return Answer(code=200 if call.version < 2 else 201, body={"keypair": view})


def show(call: Call) -> Answer:
    row = keypairs.show(call.api, _user(call, call.query.text("user_id")), call.params["keypair"])
    return Answer(body={"keypair": views.keypair(row, call.version, whole=True)})


def delete(call: Call) -> Answer:
    keypairs.delete(call.api, _user(call, call.query.text("user_id")), call.params["keypair"])
    return Answer(code=202 if call.version < 2 else 204)
