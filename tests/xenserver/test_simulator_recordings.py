"""The simulator answers as the recorded XAPI did; every step that differs is named, with the reason."""

import json
from pathlib import Path

import pytest

from tests.xenserver.recordings import Player, scenarios, steps_of

KNOWN = json.loads((Path(__file__).parent / "known_differences.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("scenario", scenarios())
def test_simulator_answers_as_recorded(scenario, tmp_path):
    player = Player(scenario, tmp_path)
    try:
        differences = player.differences()
    finally:
        player.close()
    known = {int(step) for step in KNOWN.get(scenario, {})}
    unexplained = "\n".join(f"  {step} {text}" for step, text in differences.items() if step not in known)
    assert not unexplained, f"{scenario} differs from the recording:\n{unexplained}"
    healed = known - set(differences)
    assert not healed, f"steps {sorted(healed)} of {scenario} agree now: take them out of known_differences.json"


def test_99_of_100_recorded_steps_agree():
    compared = sum(
        not (step.get("cleanup") or step.get("artefact")) for scenario in scenarios() for step in steps_of(scenario)
    )
    known = sum(len(steps) for steps in KNOWN.values())
    assert compared > 3500
    assert 1 - known / compared >= 0.99
