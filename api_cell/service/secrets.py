"""What a tenant gives for a server and nobody but its leaf may read: passwords, files, user data. Taken in here, sealed
at once with the cell's own key; the daemon opens it only to seal it for the leaf that has the server.
"""

import secrets
from typing import Any

from api_cell.errors import Invalid
from api_cell.service.api import Api
from api_cell.service.wish import refuse_large
from cells import codec
from cells.model import ImageRef, Secrets

MOST_FILES = 5
LONGEST_FILE = 10 * 1024
LONGEST_PATH = 255
"""What of files a server may be given: how many, and their bytes."""

_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_LENGTH = 12
_YES = ("true", "1", "yes", "on", "required")


def new_password() -> str:
    """Twelve letters and digits, without those that look alike."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def has_agent(image: ImageRef) -> bool:
    """Whether the image says that a guest agent is inside, which can set a password."""
    return image.properties.get("xenapi_use_agent", "").lower() in _YES


def needs_config_drive(given: Secrets, image: ImageRef) -> bool:
    """Files and user data reach every guest on it, and a password where no agent can set it."""
    return bool(given.files or given.user_data or (given.admin_password and not has_agent(image)))


def could_set_password(api: Api, image_id: str) -> bool:
    """Whether a server of this image can be given a password that nobody asked for, as OpenStack does."""
    image = api.images.get(image_id)
    return api.keep is not None and image is not None and has_agent(api.images.ref(image_id))


def kept(api: Api, given: Secrets) -> bytes:
    """The secrets as they may lie in the database."""
    if api.keep is None:
        raise Invalid("This API cell cannot keep secrets: leave out passwords, files and user data")
    packed = codec.pack(given)
    refuse_large(packed)
    return api.keep(packed)


def without(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a create without what must not be remembered, not even as a checksum."""
    server = {name: value for name, value in body["server"].items() if name not in SECRET_FIELDS}
    return {**body, "server": server}


SECRET_FIELDS = frozenset({"adminPass", "personality", "user_data"})
