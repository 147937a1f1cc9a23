"""/image/v2/images: the Glance v2 routes that clients and leaves need, on the folder of images."""

from typing import Any

from api_cell.errors import Forbidden, Invalid, NotAllowedNow, NotFound
from api_cell.http import views
from api_cell.http.bodies import check
from api_cell.http.call import Answer, Call
from api_cell.http.paging import page_size
from api_cell.http.schemas import CREATE_IMAGE_RECORD
from api_cell.http.signing import Purpose
from api_cell.images import FIELDS, FolderImages, Image, visible
from api_cell.incremental import BrokenChain, chain_of
from cells.model import BackupMark

PATCH_MEDIA = tuple(f"application/openstack-images-v2.{n}-json-patch" for n in (0, 1))

_EMPTY = {"name": "", "disk_format": "", "container_format": ""}
_READ_ONLY = frozenset(
    {
        *("id", "owner", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"),
        *("created_at", "updated_at", "self", "file", "schema", "locations", "direct_url"),
    }
)

_FIELDS_FILTERED = frozenset({"name", "status", "visibility", "owner", "id", "disk_format", "container_format"})
# Of a query of images, what Glance does not take for the name of a property.
_NO_PROPERTIES = frozenset(
    {
        *("limit", "marker", "sort", "sort_key", "sort_dir", "tag", "os_hidden", "member_status", "protected"),
        *("size_min", "size_max", "min_ram", "min_disk", "checksum", "created_at", "updated_at"),
    }
)


def _folder(call: Call) -> FolderImages:
    if call.folder is None:
        raise NotFound("Images are not served here; ask the image service this cell is configured with")
    return call.folder


def _seen(call: Call, purpose: Purpose = Purpose.READ) -> Image:
    """The image of the path, for a tenant that sees it or a leaf whose token is for it."""
    caller, image_id = call.caller, call.params["image"]
    image = _folder(call).get(image_id)
    if image is not None and caller.image:
        its = caller.image == image_id and (caller.purpose == Purpose.WRITE or purpose is Purpose.READ)
        if its or (purpose is Purpose.READ and image_id in _builds_upon(call, caller.image)):
            return image
    elif image is not None and visible(image, caller.project, admin=caller.admin):
        return image
    raise NotFound(f"No image found with ID {image_id[:255]}")


def _builds_upon(call: Call, image_id: str) -> set[str]:
    """The images that are read together with one that a leaf has a token for."""
    image = _folder(call).get(image_id)
    if image is None:
        return set()
    try:
        return {part.id for part in chain_of(image, _folder(call).get, image.owner)}
    except BrokenChain:
        return set()


def _own(call: Call) -> Image:
    """The image of the path, for who may change it."""
    image = _seen(call, Purpose.WRITE)
    if call.caller.image or call.caller.admin or image.owner == call.caller.project:
        return image
    raise Forbidden(f"Image {image.id} belongs to another project; only its owner may change it")


def names(call: Call) -> Answer:
    query, caller = call.query, call.caller
    found = [i for i in _folder(call).all() if visible(i, caller.project, admin=caller.admin)]
    for field in query.names() & _FIELDS_FILTERED:
        if field == "visibility" and query.text(field) == "all":
            continue
        text = query.text(field)
        wanted = _any_of(text) if text.startswith("in:") else {text}
        found = [image for image in found if getattr(image, field) in wanted]
    for name in query.names() - _FIELDS_FILTERED - _NO_PROPERTIES:
        found = [image for image in found if image.properties.get(name) == query.text(name)]
    hidden = query.truth("os_hidden")
    found = [image for image in found if image.hidden == hidden]
    for tag in query.all("tag"):
        found = [image for image in found if tag in image.tags]
    found = _sorted(call, found)
    marker = query.text("marker")
    if marker:
        places = [n for n, image in enumerate(found) if image.id == marker]
        if not places:
            raise Invalid(f"marker: no image {marker[:80]} is in this list; begin again without a marker")
        found = found[places[0] + 1 :]
    page = found[: page_size(call)]
    body: dict[str, Any] = {
        "images": [views.image(image) for image in page],
        "first": "/v2/images",
        "schema": "/v2/schemas/images",
    }
    if page and len(page) < len(found):
        body["next"] = views.next_link("", "/v2/images", query.pairs(), page[-1].id)[0]["href"]
    return Answer(body=body)


def _any_of(text: str) -> set[str]:
    """in:a,b,"c,d" as a set."""
    wanted, word, quoted = set(), "", False
    for char in text.removeprefix("in:"):
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            wanted.add(word)
            word = ""
        else:
            word += char
    return wanted | {word}


_ORDERS = {"created_at": "created", "updated_at": "updated", "name": "name", "id": "id", "status": "status", "size": ""}


def _sorted(call: Call, found: list[Image]) -> list[Image]:
    """sort=name:asc,id:desc, or the older sort_key and sort_dir."""
    query = call.query
    words = query.text("sort").split(",") if "sort" in query else []
    words += [f"{key}:{query.text('sort_dir', 'desc')}" for key in query.all("sort_key")]
    for word in reversed([word for word in words if word]):
        key, _, direction = word.partition(":")
        if key not in _ORDERS or direction not in ("", "asc", "desc"):
            raise Invalid(f"sort: {word[:80]!r} is not understood; use one of {', '.join(_ORDERS)} and asc or desc")
        field = _ORDERS[key]
        found.sort(key=lambda image: getattr(image, field) if field else (image.size or 0), reverse=direction != "asc")
    return found


def show(call: Call) -> Answer:
    return Answer(body=views.image(_seen(call)))


def create(call: Call) -> Answer:
    folder, caller = _folder(call), call.caller
    if caller.image:
        raise Forbidden("An image token is good for its image only")
    fields, properties = _split(call, call.body)
    owner = call.body.get("owner") or caller.project
    if owner != caller.project and not caller.admin:
        raise Forbidden("owner: only an administrator may make images of another project; leave it out")
    fields.setdefault("visibility", "shared")
    fields["name"] = fields.get("name") or ""
    image_id = folder.create(owner=owner, id=call.body.get("id", ""), properties=properties, **fields)
    headers = {"Location": f"{call.base}/image/v2/images/{image_id}"}
    return Answer(code=201, body=views.image(folder.need(image_id)), headers=headers)


def _split(call: Call, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of the record, and the properties beside them."""
    fields: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for key, value in body.items():
        if key in FIELDS:
            fields[FIELDS[key]] = _EMPTY.get(key, value) if value is None else value
        elif key in _READ_ONLY:
            if key not in ("id", "owner"):
                raise Forbidden(f"Attribute '{key}' is read-only.")
        elif value is not None:
            properties[key] = value
    if fields.get("visibility") == "public" and not call.caller.admin:
        raise Forbidden("visibility: only an administrator may make an image public; use private or shared")
    if "tags" in fields:
        fields["tags"] = tuple(dict.fromkeys(fields["tags"]))
    return fields, properties


def update(call: Call) -> Answer:
    image = _own(call)
    asked: dict[str, Any] = {}
    properties = dict(image.properties)
    for change in call.body:
        key = change["path"][1:].replace("~1", "/").replace("~0", "~")
        if key in _READ_ONLY:
            raise Forbidden(f"Attribute '{key[:80]}' is read-only.")
        if change["op"] == "remove":
            if key in FIELDS:
                raise Forbidden(f"Property {key} may not be removed.")
            if key not in properties:
                raise NotAllowedNow(f"Property {key[:80]} does not exist.")
            del properties[key]
            continue
        if "value" not in change:
            raise Invalid(f"{change['op']} of {key[:80]} has no value")
        if change["op"] == "replace" and key not in FIELDS and key not in properties:
            raise NotAllowedNow(f"Property {key[:80]} does not exist; use op add")
        asked[key] = change["value"]
    # The patched record must be as valid as a new one.
    check(asked, CREATE_IMAGE_RECORD)
    fields, more = _split(call, asked)
    if image.status != "queued" and {"disk_format", "container_format"} & fields.keys():
        raise Forbidden("disk_format and container_format can be set only while the image is queued")
    done = _folder(call).change(image.id, properties={**properties, **more}, **fields)
    return Answer(body=views.image(done))


def delete(call: Call) -> Answer:
    image = _own(call)
    if call.caller.image:
        raise Forbidden("An image token does not allow deleting")
    if above := _folder(call).having({BackupMark.PARENT: image.id}):
        raise NotAllowedNow(f"Image {image.id} is in use: {above[0].id} builds upon it; delete that first")
    _folder(call).remove(image.id)
    return Answer(code=204)


def upload(call: Call) -> Answer:
    image = _own(call)
    if call.stream is None:
        raise Invalid("The request has no body; send the image's data")
    _folder(call).fill(image.id, call.stream, call.length)
    return Answer(code=204)


def download(call: Call) -> Answer:
    image = _seen(call)
    if image.status != "active":
        # Glance's own answer for an image without data.
        return Answer(code=204)
    data, length = _folder(call).open(image.id)
    return Answer(stream=data, length=length, media="application/octet-stream", headers={"Content-MD5": image.checksum})


def tasks(call: Call) -> Answer:
    """Here images are changed by requests alone, never by tasks."""
    _seen(call)
    return Answer(body={"tasks": []})


def add_tag(call: Call) -> Answer:
    image = _own(call)
    tag = call.params["tag"]
    if len(tag) > 255:
        raise Invalid("tag: is longer than 255 characters")
    if tag not in image.tags:
        _folder(call).change(image.id, tags=(*image.tags, tag))
    return Answer(code=204)


def drop_tag(call: Call) -> Answer:
    image = _own(call)
    tag = call.params["tag"]
    if tag not in image.tags:
        raise NotFound(f"Image {image.id} has no tag {tag[:255]}")
    _folder(call).change(image.id, tags=tuple(other for other in image.tags if other != tag))
    return Answer(code=204)
