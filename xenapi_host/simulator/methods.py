"""Which methods of XenAPI the simulator has: `python -m xenapi_host.simulator.methods` writes METHODS.md."""

from __future__ import annotations

from pathlib import Path

from xenapi_host.simulator import behaviours
from xenapi_host.simulator.dispatch import BEHAVIOURS
from xenapi_host.simulator.implicit import from_model
from xenapi_host.simulator.model import Message, model


def kind_of(class_name: str, message: Message) -> str:
    if message.removed:
        return "removed"
    if f"{class_name}.{message.name}" in BEHAVIOURS:
        return "behaviour"
    return "model" if from_model(class_name, message) is not None else "absent"


def listing() -> str:
    """The page, class by class."""
    behaviours.load()
    lines = [
        "# Methods of the simulator",
        "",
        "Made by `python -m xenapi_host.simulator.methods`. *Behaviour*: written by hand. *From the model*: getters,",
        "setters, lookups and the like, not named here. *Absent*: known, and answered with NOT_IMPLEMENTED [method]",
        "after bad handles have been told. Methods that XAPI itself has removed answer MESSAGE_REMOVED.",
    ]
    for class_name, known in sorted(model().classes.items(), key=lambda item: item[0].lower()):
        kinds: dict[str, list[str]] = {}
        for message in known.messages.values():
            kinds.setdefault(kind_of(class_name, message), []).append(message.name)
        if not kinds:
            continue
        removed = f", {len(kinds['removed'])} removed" if "removed" in kinds else ""
        lines += ["", f"## {class_name}", "", f"{len(kinds.get('model', []))} from the model{removed}"]
        for title in ("behaviour", "absent"):
            if title in kinds:
                lines += ["", f"{title.capitalize()}: {', '.join(sorted(kinds[title]))}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("METHODS.md").write_text(listing(), encoding="utf-8")
