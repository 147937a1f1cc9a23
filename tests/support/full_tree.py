"""An API cell over a leaf whose pool is the full simulator: REST over HTTP, real VHD files, real plugins."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from cells.cli.demo_tree import DemoTree, open_tree
from xenapi_host.image_maker import make_image

PATIENCE_SECONDS = 60.0
MIB = 2**20


@dataclass(kw_only=True)
class Rest:
    """Somebody at the front door. `token`: gives his, where the door asks for one."""

    endpoint: str
    token: Callable[[], str] | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"OpenStack-API-Version": "compute 2.61"})

    def ask(self, method: str, path: str, body: Any = None, code: int = 0) -> Any:
        headers = {**self.headers, "X-Auth-Token": self.token()} if self.token else self.headers
        answer = requests.request(method, f"{self.endpoint}/v2.1{path}", json=body, headers=headers, timeout=60)
        assert answer.status_code == code or (not code and answer.ok), answer.text
        return answer.json() if answer.text else None

    def act(self, server: str, action: str, argument: Any = None) -> Any:
        return self.ask("POST", f"/servers/{server}/action", {action: argument})

    def built(self, name: str, image: str) -> str:
        """A server's id, once it is ACTIVE."""
        wish = {"name": name, "imageRef": image, "flavorRef": "1", "networks": "none"}
        server = str(self.ask("POST", "/servers", {"server": wish})["server"]["id"])

        def is_over() -> bool:
            shown = self.ask("GET", f"/servers/{server}")["server"]
            assert shown["status"] != "ERROR", shown
            return bool(shown["status"] == "ACTIVE")

        until(f"server {name} is active", is_over)
        return server


def until(what: str, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.1)


@contextmanager
def a_full_tree(folder: Path, front: dict[str, Any] | None = None) -> Iterator[DemoTree]:
    """east over dfw-1, both in threads of their own."""
    tree = open_tree(folder, 0, parents_of={"east": (), "dfw-1": ("east",)}, front=front)
    try:
        until("east knows the room below it", lambda: any(record.capacity for record in tree.records().values()))
        yield tree
    finally:
        tree.close()


def an_image_file(folder: Path) -> Path:
    """A small image that a XenServer takes: a tar.gz of a VHD."""
    content = folder / "content"
    content.mkdir()
    (content / "etc").mkdir()
    (content / "etc" / "hostname").write_text("demo\n")
    return make_image(content, folder / "image.vhd.tgz", size=32 * MIB).path
