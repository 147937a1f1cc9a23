"""Settings that are more than text and numbers, and what a wrong one is told."""

import pytest

from api_cell.role import ApiSettings
from cells.config import fill
from cells.errors import BadInput
from routing.weights import Strategy


def test_a_word_of_a_closed_set_is_taken_as_that_set_has_it():
    settings = fill(ApiSettings, {"placement": {"strategy": "stack"}}, "settings")
    assert settings.placement is not None
    assert settings.placement.strategy is Strategy.STACK


def test_a_word_outside_the_set_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match=r"settings: placement: strategy must be one of .*stack.*, not 'heap'"):
        fill(ApiSettings, {"placement": {"strategy": "heap"}}, "settings")
