"""The documents say what is so: links lead somewhere, modules and commands that are named exist, and the reference is
what the code gives."""

import re
from functools import cache
from pathlib import Path

import pytest

from docs import generate

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cells", "routing", "xenapi_host", "api_cell", "compute_cell", "migrations")
_SKIPPED = {"build", "dist", "node_modules"}

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
# In backticks: a path to a module, or a module's file name.
_MODULE = re.compile(r"`([A-Za-z_][\w/]*\.py)(?::\w+)?`")
# A command as somebody would type it: at the start of a line, after a prompt, or in backticks.
_COMMAND = re.compile(r"(?:^\s*(?:\$ )?|`)celltree((?: [a-z][a-z-]*)*)(?=$|[\s`:|,;)])", re.MULTILINE)


@cache
def documents() -> dict[str, str]:
    found = {}
    for path in sorted(ROOT.rglob("*.md")):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part in _SKIPPED for part in parts):
            found["/".join(parts)] = path.read_text(encoding="utf-8")
    return found


def test_there_are_documents() -> None:
    """So that a moved folder cannot empty the tests below."""
    assert {"README.md", "docs/README.md", "docs/tutorial.md", "docs/how-to.md", "docs/reference.md"} <= set(
        documents()
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_readme(package: str) -> None:
    assert f"{package}/README.md" in documents()


def test_every_relative_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for name, text in documents().items():
        for target in _LINK.findall(text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            if not file.exists():
                broken.append(f"{name}: {target} does not exist")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                broken.append(f"{name}: {target} names no heading")
    assert not broken


def anchors(text: str) -> set[str]:
    """Headings as links name them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(text)}


def test_every_module_that_a_readme_or_the_architecture_names_exists() -> None:
    missing = []
    for name, text in documents().items():
        if not (name.endswith("README.md") or name == "docs/architecture.md"):
            continue
        here = (ROOT / name).parent
        for word in _MODULE.findall(text):
            at = (ROOT / word, here / word, here.parent / word)
            anywhere = any(here.rglob(word)) if "/" not in word else False
            if not (any(each.exists() for each in at) or anywhere):
                missing.append(f"{name}: {word}")
    assert not missing


def test_every_celltree_command_that_is_named_exists() -> None:
    known = set(generate.commands()) | {"help", "complete"}
    groups = {name.split()[0] for name in known}
    wrong = []
    seen = 0
    for name, text in documents().items():
        for words in _COMMAND.findall(text):
            typed = words.split()
            if not typed:
                continue
            seen += 1
            named = {" ".join(typed[:count]) for count in (1, 2)}
            if not (named & known or (len(typed) == 1 and typed[0] in groups)):
                wrong.append(f"{name}: celltree{words}")
    assert seen > 20
    assert not wrong


def test_every_setting_has_its_unit_and_when_to_change_it() -> None:
    """A new setting needs a line in docs/settings.yaml; one that is gone must go there, too."""
    assert set(generate.notes()) == generate.setting_names()


@pytest.mark.parametrize("page", generate.PAGES)
def test_the_reference_is_what_the_code_gives(page: str) -> None:
    written = (generate.FOLDER / page).read_text(encoding="utf-8")
    assert written == generate.PAGES[page](), "run: python -m docs.generate"


def test_every_page_of_the_reference_is_generated_and_linked() -> None:
    pages = {path.name for path in generate.FOLDER.iterdir()}
    assert pages == set(generate.PAGES)
    assert all(f"reference/{page}" in documents()["docs/reference.md"] for page in pages)


def test_every_test_that_the_page_on_security_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", documents()["docs/security.md"]))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= there, named - there
