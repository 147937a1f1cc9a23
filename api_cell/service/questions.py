"""Questions to the leaf that holds a server, while a client waits: its console, its measurements.

The question is a row and a wake; the daemon sends it down, the answer comes up into the row, and the request looks for
it, in short reads, for a few seconds. Nothing is sent again: loss is a time-out, and the client asks anew.
"""

import zlib

from api_cell import allowed
from api_cell.errors import NoAnswer, NotAllowedNow
from api_cell.rows import OpenIntent, QuestionRow
from api_cell.service.actions import Asking
from api_cell.service.api import Api
from api_cell.service.servers import get
from api_cell.service.wish import wake_for
from cells.decision import Remove
from cells.messages import Ask, Question, kind_of
from cells.ports import Unit

_LOOKS = 100
_EACH = 0.05
_MOST = 4 * 1024 * 1024


def ask(api: Api, asking: Asking, kind: Question, *, about: str = "") -> bytes:
    """The leaf's answer. `about`: as in messages.Ask. NotAllowedNow with the leaf's reason; NoAnswer when it says
    nothing in five seconds."""
    question = api.ids()

    def act(unit: Unit) -> None:
        row = get(unit, asking.caller, asking.server)
        allowed.check(row, "server.ask")
        if not row.leaf:
            raise NotAllowedNow("No cell holds the server; it has nothing to tell")
        command, now = Ask(question=question, kind=kind, about=about), api.clock()
        wish = OpenIntent(number=0, action=kind_of(command).name, at=now, request=asking.request)
        unit.save(QuestionRow(id=question, server=row.id, leaf=row.leaf, at=now), wake_for(api, row, wish, command))

    api.change(act)
    api.poke()
    answer = _waited(api, question)
    api.change(lambda unit: unit.save(Remove(row=QuestionRow, key=(question,))))
    if answer is None:
        raise NoAnswer("The cell that holds the server did not answer in time; try again in a moment")
    if answer.error:
        raise NotAllowedNow(answer.error)
    return zlib.decompressobj().decompress(answer.body, _MOST)


def _waited(api: Api, question: bytes) -> QuestionRow | None:
    for look in range(_LOOKS):
        found = api.read(lambda unit: unit.get(QuestionRow, question))
        if found is None or found.done:
            return found
        if look + 1 < _LOOKS:
            api.pause(_EACH)
    return None
