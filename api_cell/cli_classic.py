"""`celltree migrate-classic`: a guest of a classic Xen host becomes a server, asked for over REST and followed."""

import argparse
import base64
import os
import time
from typing import Any

from cells.cli.command import Command, console
from cells.cli.rest import Rest
from cells.errors import BadInput, Permanent

# The task state a server is in, and what goes on then.
_STAGES = {
    "scheduling": "a leaf is chosen that reaches the guest, and a host on it",
    "block_device_mapping": "the disk is made and partitioned; a snapshot of the running guest is copied onto it",
    "spawning": "the guest is powered off; what has changed is copied, the kit goes on top, the VM starts",
}


class MigrateClassic(Command):
    """Make a guest of a classic Xen host a server, and show how it goes until it runs."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("guest", help="the guest, as its source names it")
        parser.add_argument("--source", required=True, help="the leaf's source (classic_sources) that reaches it")
        parser.add_argument("--flavor", required=True, help="id of the flavor, whose disk must hold the guest's files")
        parser.add_argument("--kit", required=True, metavar="IMAGE", help="id of the image with kernel, ramdisk, agent")
        parser.add_argument("--name", help="the server's name; the guest's unless given")
        parser.add_argument(
            "--endpoint",
            default=os.environ.get("OS_ENDPOINT", "http://127.0.0.1:8774"),
            help="the API: http://HOST:PORT (OS_ENDPOINT; credentials are taken from OS_USERNAME and OS_PASSWORD, or "
            "OS_TOKEN)",
        )
        parser.add_argument(
            "--patience", type=float, default=6 * 3600.0, metavar="SECONDS", help="wait at most so long"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        rest = Rest(_plain(parsed_args.endpoint), headers=_credentials())
        asked = {
            "name": parsed_args.name or parsed_args.guest,
            "flavorRef": parsed_args.flavor,
            "imageRef": parsed_args.kit,
            "source": parsed_args.source,
            "guest": parsed_args.guest,
        }
        answer = rest.compute("POST", "/os-classic-migrations", {"classic_migration": asked})
        server = str(answer["server"]["id"])
        out, began, shown = console(), time.monotonic(), ""
        out.print(f"[bold]{asked['name']}[/] is server {server}")

        def look() -> Any:
            nonlocal shown
            seen = rest.compute("GET", f"/servers/{server}")["server"]
            stage = seen["OS-EXT-STS:task_state"] or ""
            if stage != shown and stage:
                out.print(f"  [dim]{time.monotonic() - began:7.1f} s[/]  {_STAGES.get(stage, stage)}")
            shown = stage
            return seen

        def ended(seen: Any) -> bool:
            return seen["status"] in ("ACTIVE", "ERROR")

        seen = rest.wait(look, ended, parsed_args.patience, f"the migration of {parsed_args.guest}")
        if seen["status"] == "ERROR":
            raise Permanent(seen.get("fault", {}).get("message", "the migration failed; see celltree story"))
        out.print(f"  [dim]{time.monotonic() - began:7.1f} s[/]  [green]ACTIVE[/] on {seen['OS-EXT-SRV-ATTR:host']}")


def _plain(endpoint: str) -> str:
    if not endpoint.startswith(("http://", "https://")):
        raise BadInput(f"--endpoint {endpoint!r} must be http://HOST:PORT or https://HOST:PORT")
    return endpoint.rstrip("/").removesuffix("/v2.1")


def _credentials() -> dict[str, str]:
    """The header that says who asks, from the variables that OpenStack's clients use."""
    if token := os.environ.get("OS_TOKEN"):
        return {"X-Auth-Token": token}
    user, password = os.environ.get("OS_USERNAME"), os.environ.get("OS_PASSWORD")
    if not user or not password:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
