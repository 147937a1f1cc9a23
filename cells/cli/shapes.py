"""How a command that draws prints the same facts as JSON or YAML instead (-f)."""

import argparse
import json
from typing import Any

import yaml

DRAWN, JSON, YAML = "text", "json", "yaml"


def add_format(parser: argparse.ArgumentParser) -> None:
    """-f: text, json or yaml."""
    parser.add_argument(
        "-f", "--format", choices=(DRAWN, JSON, YAML), default=DRAWN, help="how to print it (default: text)"
    )


def printed(facts: Any, form: str) -> str:
    """Facts made of dicts, lists and scalars, as JSON or YAML."""
    if form == JSON:
        return json.dumps(facts, indent=2)
    return yaml.safe_dump(facts, sort_keys=False).rstrip()
