"""The REST API as a WSGI server starts it: from a configuration file, sharing only the database with the daemons."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from api_cell.http.wsgi import CONFIG, application
from api_cell.role import ApiRole
from cells.errors import BadInput
from cells.identity import RootKey, new_key
from cells.store.sql import SqlStore
from tests.support.requests import ask


def a_config(folder: Path, role: str = "api", **front: Any) -> Path:
    root = RootKey(os.urandom(32))
    seed, public = new_key(os.urandom)
    certificate = root.certify("east", os.urandom(16), role, public, 1)
    for name, data in (("key", seed), ("certificate", certificate), ("root", root.public)):
        (folder / name).write_text(data.hex())
    config = {
        "cell": "east",
        "role": role,
        "database": f"sqlite:///{folder}/east.db",
        "broker": "memory://east",
        "key": "key",
        "certificate": "certificate",
        "root": "root",
        "settings": {"front": {"images": str(folder / "images"), "image_url": "http://127.0.0.1:9/image", **front}},
    }
    path = folder / "east.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_application_is_made_from_the_cells_configuration(tmp_path: Path) -> None:
    path = a_config(tmp_path)
    store = SqlStore(f"sqlite:///{tmp_path}/east.db", ApiRole.rows)
    store.create_all()
    app = application({CONFIG: str(path)})
    try:
        flavors = ask(app, "GET", "/v2.1/flavors").json["flavors"]
        assert "m1.tiny" in [flavor["name"] for flavor in flavors]
        assert ask(app, "GET", "/readyz").status_code == 200
    finally:
        app.api.store.close()
        store.close()


def test_a_configuration_that_cannot_serve_rest_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=CONFIG):
        application({})
    with pytest.raises(BadInput, match="only an API cell"):
        application({CONFIG: str(a_config(tmp_path, "compute"))})


@pytest.mark.parametrize(
    ("front", "words"),
    [
        ({"auth": "http_basic"}, "needs users_file"),
        ({"auth": "http_basic", "users_file": "/no/such"}, "users_file /no/such cannot be read"),
        ({"auth": "keystone"}, "needs keystone: url and password_file"),
        ({"auth": "keystone", "keystone": {"url": "http://k", "password_file": "/no/such"}}, "cannot be read"),
        ({"auth": "keystone", "keystone": {"uri": "http://k"}}, "uri"),
        ({"auth": "kerberos"}, "use one of none, http_basic, keystone"),
    ],
)
def test_logins_that_are_not_configured_whole_are_refused_by_name(
    tmp_path: Path, front: dict[str, Any], words: str
) -> None:
    SqlStore(f"sqlite:///{tmp_path}/east.db", ApiRole.rows).close()
    with pytest.raises(BadInput, match=words):
        application({CONFIG: str(a_config(tmp_path, **front))})


GLANCE = "http://glance:9292"


# keystoneauth1 imports cgi until Python has it no more.
@pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("front", "words"),
    [
        ({"glance": {"url": GLANCE}}, "images and image_url must not be set"),
        ({"glance": {"url": GLANCE}, "images": "", "image_url": "", "auth": "none"}, "glance needs auth keystone"),
        ({"glance": {"url": f"{GLANCE}/v2"}, "images": "", "image_url": ""}, "write https://host:port, without /v2"),
        ({"glance": {"url": "glance:9292"}, "images": "", "image_url": ""}, "write https://host:port"),
        ({"glance": {"url": "http://me:pw@glance"}, "images": "", "image_url": ""}, "no user, password or query"),
        (
            {"glance": {"url": GLANCE, "authorities": "/no/such"}, "images": "", "image_url": ""},
            "authorities /no/such cannot be used",
        ),
        ({"glance": {"uri": GLANCE}}, "uri"),
        ({"images": "", "image_url": ""}, "name a folder where the images are kept, or glance: url"),
    ],
)
def test_an_image_service_that_is_not_configured_whole_is_refused_with_the_remedy(
    tmp_path: Path, front: dict[str, Any], words: str
) -> None:
    (tmp_path / "password").write_text("pw")
    keystone = {"url": "http://keystone:5000/v3", "password_file": str(tmp_path / "password")}
    if "auth" not in front:
        front = {**front, "auth": "keystone", "keystone": keystone}
    with pytest.raises(BadInput, match=words) as refused:
        application({CONFIG: str(a_config(tmp_path, **front))})
    assert "pw@" not in str(refused.value)
