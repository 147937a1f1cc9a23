"""Every story prints what its file says. With --rewrite the files are written anew; the difference is reviewed."""

from pathlib import Path

import pytest

from tests.stories.language import Story

FOLDER = Path(__file__).parent
STORIES = sorted(path.stem for path in FOLDER.glob("*.txt"))


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / f"{name}.txt"
    text = path.read_text(encoding="utf-8")
    told = Story().play(text)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(told, encoding="utf-8")
    else:
        assert told.splitlines() == text.splitlines()


def test_story_that_is_told_otherwise_fails() -> None:
    text = (FOLDER / "build.txt").read_text(encoding="utf-8")
    assert Story().play(text.replace("accepted on host", "turned away by host")) != text.replace(
        "accepted on host", "turned away by host"
    )
