"""Every advisory of the attack list has a test that bears its number, in its name or in the id of one of its cases, so
that `pytest -k 2016_007` runs it; or a reason why there is nothing to attack.
"""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]

# What went wrong, by subject; the numbers are those of OpenStack's security advisories.
ATTACKS = {
    "settings that protect, after a resize": "2013-030",
    "credentials in errors and logs": "2016-002 2014-036 2017-002 2017-001 2020-001",
    "images that point at files of the host": "2015-014 2023-002 2024-001 2024-002",
    "a guest that rewrites its disk": "2014-009 2016-001 2016-007 2026-002",
    "size bombs": "2013-012 2013-029 2013-037 2016-012 2014-028 2015-020",
    "paths in names": "2011-001 2012-008 2012-011 2014-041 2015-002",
    "deletes meanwhile": "2015-015 2015-017 2016-011 2014-037",
    "what placing would have refused": "2017-005 2017-006 2013-019 2013-024 2013-027",
    "what an earlier tenant left": "2012-020 2014-003 2014-001",
    "other tenants' things": "2012-001 2013-006 2014-011 2014-035 2012-017",
    "identity": "2026-001 2014-030 2016-005 2014-024",
    "requests that exhaust": "2012-003 2012-009 2012-005 2014-038 2013-004 2013-023 2013-026",
    "faults that tell of the inside": "2019-003",
    "consoles": "2015-005 2021-002 2020-001",
    "requests sent elsewhere": "2026-004",
    "XAPI itself": "GHSA-fg38-pgj3-5w5f",
    # Between cells there are no advisories; each attack is a test of tests/unit/cells/test_parking.py.
}
NOT_HERE = {
    "2012-011": "links inside a guest's image: no file of a guest is written from outside, its own agent does that",
}


def _borne() -> dict[str, list[str]]:
    """Number -> the tests that bear it."""
    borne: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in _numbers(node):
                    borne.setdefault(number, []).append(f"{path.name}::{node.name}")
    return borne


def _numbers(test: ast.FunctionDef) -> set[str]:
    """In its name and in the ids of its cases."""
    ids = {
        word.value
        for decorator in test.decorator_list
        for keyword in ast.walk(decorator)
        if isinstance(keyword, ast.keyword) and keyword.arg in ("id", "ids")
        for word in ast.walk(keyword.value)
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    }
    numbers = {number for text in (test.name, *ids) for number in re.findall(r"20\d\d_\d{3}(?!\d)", text)}
    return numbers | set(re.findall(r"ghsa(?:_[0-9a-z]{4}){3}", test.name))


def _wanted() -> set[str]:
    return {number for numbers in ATTACKS.values() for number in numbers.split()}


def test_every_advisory_has_a_test_that_bears_its_number_or_a_reason() -> None:
    borne = _borne()
    missing = sorted(number for number in _wanted() - NOT_HERE.keys() if number.lower().replace("-", "_") not in borne)
    assert not missing, f"no test bears these, and no reason is given: {missing}"


def test_a_reason_is_given_only_for_what_is_on_the_list_and_has_no_test() -> None:
    borne = _borne()
    assert NOT_HERE.keys() <= _wanted()
    assert not [number for number in NOT_HERE if number.replace("-", "_") in borne]
    for reason in NOT_HERE.values():
        assert set(re.findall(r"20\d\d_\d{3}", reason)) <= borne.keys()


def test_the_page_on_security_tells_of_every_advisory() -> None:
    page = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
    assert not sorted(number for number in _wanted() if number not in page)
