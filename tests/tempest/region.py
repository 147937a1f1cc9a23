"""What Tempest is let loose on: the demo's tree, a Keystone with people of every role, two images, and the files that
tell Tempest of them."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from cells.cli.demo_tree import DemoTree, open_tree
from tests.support.full_tree import until
from tests.support.keystone import ADMIN, Keystone, a_keystone
from xenapi_host.image_maker import make_image
from xenapi_host.simulator.guest_agent import PROGRAM, VERSION, VERSION_FILE

MIB = 2**20
PASSWORD = "of-tempest"
PROJECTS, ADMINISTRATORS = 9, 3

# What is off is not there: volumes, interfaces, shelving. No guest is logged in to, since none has an address. There is
# no network service either, but without the word of one Tempest skips most of its tests of servers, which need none.
_CONF = """
[DEFAULT]
log_file = {folder}/tempest.log
[oslo_concurrency]
lock_path = {folder}/locks
[auth]
use_dynamic_credentials = false
test_accounts_file = {folder}/accounts.yaml
create_isolated_networks = false
admin_username = admin
admin_password = {admin}
admin_project_name = admin
admin_domain_name = Default
[identity]
uri_v3 = {keystone}
region = RegionOne
[service_available]
nova = true
glance = true
neutron = true
cinder = false
swift = false
[validation]
run_validation = false
[compute]
image_ref = {image}
image_ref_alt = {other_image}
flavor_ref = 1
flavor_ref_alt = 2
min_compute_nodes = 2
build_timeout = 60
min_microversion = {least}
max_microversion = 2.61
[compute-feature-enabled]
resize = true
change_password = true
personality = true
block_migration_for_live_migration = true
interface_attach = false
metadata_service = false
shelve = false
"""


@contextmanager
def a_region(folder: Path, least: str) -> Iterator[Path]:
    """Everything up; gives the configuration of Tempest. `least`: the microversion that is asked for where a test does
    not need a later one."""
    for name in ("keystone", "tree", "locks"):
        (folder / name).mkdir()
    with a_keystone(folder / "keystone") as keystone:
        _people(keystone, folder / "accounts.yaml")
        with _a_tree(keystone, folder) as tree:
            for kind, path in (("compute", "v2.1"), ("image", "image")):
                service = keystone.make("service", type=kind, name=kind)
                url = f"{tree.endpoint}/{path}"
                keystone.make("endpoint", service_id=service, interface="public", url=url, region_id="RegionOne")
            image, other = _images(f"{tree.endpoint}/image/v2/images", keystone.login("admin", ADMIN, "admin"), folder)
            told = {"folder": folder, "keystone": keystone.url, "image": image, "other_image": other, "least": least}
            told["admin"] = ADMIN
            conf = folder / "tempest.conf"
            conf.write_text(_CONF.format(**told))
            yield conf


@contextmanager
def _a_tree(keystone: Keystone, folder: Path) -> Iterator[DemoTree]:
    service = keystone.make("project", name="service", domain_id="default")
    keystone.grant(keystone.make("user", name="celltree", password=PASSWORD, domain_id="default"), "service", service)
    (folder / "password").write_text(PASSWORD)
    (folder / "secret").write_text("s" * 32)
    front = {
        "auth": "keystone",
        "secret_file": str(folder / "secret"),
        "images": str(folder / "images"),
        "keystone": {"url": keystone.url, "password_file": str(folder / "password")},
    }
    tree = open_tree(folder / "tree", 0, front=front)
    try:
        until("east knows the room below it", lambda: any(record.capacity for record in tree.records().values()))
        yield tree
    finally:
        tree.close()


def _people(keystone: Keystone, accounts: Path) -> None:
    """Tempest takes a project for each class of tests, with somebody of each role in it."""
    told: list[dict[str, Any]] = []
    for number in range(PROJECTS + ADMINISTRATORS):
        project = f"tempest-{number}"
        made = keystone.make("project", name=project, domain_id="default")
        for role in ("member", "reader", "manager") if number < PROJECTS else ("admin",):
            name = f"{project}-{role}"
            keystone.grant(keystone.make("user", name=name, password=PASSWORD, domain_id="default"), role, made)
            account = {"username": name, "password": PASSWORD, "project_name": project, "roles": [role]}
            account |= dict.fromkeys(("domain_name", "user_domain_name", "project_domain_name"), "Default")
            told.append(account | ({"types": ["admin"]} if role == "admin" else {}))
    accounts.write_text(yaml.safe_dump(told))


def _images(url: str, token: str, folder: Path) -> tuple[str, str]:
    """Two images of a guest with an agent, so that passwords can be set."""
    content = folder / "content"
    for path, text in (("etc/hostname", "tempest\n"), (PROGRAM[1:], "#!/bin/sh\n"), (VERSION_FILE[1:], VERSION)):
        (content / path).parent.mkdir(parents=True, exist_ok=True)
        (content / path).write_text(text)
    (content / PROGRAM[1:]).chmod(stat.S_IRWXU)
    data = make_image(content, folder / "image.tar.gz", size=32 * MIB).path.read_bytes()
    headers = {"X-Auth-Token": token}
    made = []
    for name in ("demo-linux", "other-linux"):
        wish = {"name": name, "disk_format": "vhd", "container_format": "ovf", "visibility": "public"}
        answer = requests.post(url, json={**wish, "xenapi_use_agent": "true"}, headers=headers, timeout=60)
        answer.raise_for_status()
        made.append(str(answer.json()["id"]))
        sent = {**headers, "Content-Type": "application/octet-stream"}
        requests.put(f"{url}/{made[-1]}/file", data=data, headers=sent, timeout=60).raise_for_status()
    return made[0], made[1]
