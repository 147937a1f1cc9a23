"""One call on its way through the engine: who asks, under which task, where it may be stopped, and short ways to what
behaviours use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.failure import NULL, Dropped, Failure, handle_invalid
from xenapi_host.simulator.faults import NOTHING, Stroke

if TYPE_CHECKING:
    from xenapi_host.simulator.engine import Engine


class Call:
    """A call and its task. The engine's lock is held but where a method says otherwise."""

    __slots__ = ("at", "db", "engine", "method", "session", "task_row")

    def __init__(self, engine: Engine, method: str, session: Row | None, task_row: Row | None = None) -> None:
        self.engine = engine
        self.db = engine.db
        self.method = method
        self.session = session
        self.task_row = task_row
        self.at = ""  # the host that does the work, once that is known

    @property
    def task(self) -> str:
        """The reference that current_operations names."""
        return self.task_row.ref if self.task_row is not None else f"DummyRef:|{self.engine.new_uuid()}|{self.method}"

    @property
    def asker(self) -> Row:
        if self.session is None:
            raise Failure("SESSION_INVALID", NULL)
        return self.session

    def row(self, class_name: str, ref: str) -> Row:
        row = self.db.rows.get(ref)
        if row is None or row.class_name != class_name:
            raise handle_invalid(class_name, ref)
        return row

    def cancelled(self) -> bool:
        return self.task_row is not None and "cancel" in self.task_row["current_operations"].values()

    def refuse_interrupted(self) -> None:
        """A point to stop at: the task has been cancelled, or the host at work has died. May be asked without the
        lock; nothing that was begun is undone here."""
        if self.cancelled():
            raise Failure("TASK_CANCELLED", self.task)
        if self.engine.pool["master"] in self.engine.down:
            raise Dropped("the pool's master has died")
        if self.at in self.engine.down:
            raise Failure("CANNOT_CONTACT_HOST", self.at)

    @contextmanager
    def at_work(self, **doing: Row) -> Iterator[None]:
        """`at_work(destroy=vdi)`: the operations of these objects, as clients see them while they run: in
        current_operations, under a task (a synchronous call has one of its own, as in XAPI; a getter none) that may be
        cancelled before anything has changed."""
        own = self.task_row is None and self.engine.tasks_for_calls and ".get_" not in self.method
        if own:
            self.task_row = self.engine.start_task(self.method, self.session)
        task = self.task
        for name, row in doing.items():
            self.db.set(row, "current_operations", {**row["current_operations"], task: name})
        self.let_cancel()
        try:
            self.shares_lock()
            yield
        finally:
            for row in doing.values():
                if row.ref in self.db.rows:
                    left = {key: name for key, name in row["current_operations"].items() if key != task}
                    self.db.set(row, "current_operations", left)
            if own and self.task_row is not None:
                self.db.delete(self.task_row)
                self.task_row = None

    def let_cancel(self) -> None:
        """Show that the task may be cancelled from now on."""
        if self.task_row is not None:
            self.db.set(self.task_row, "allowed_operations", ["cancel"])

    def tell_progress(self, done: float) -> None:
        """How far long work has got, in whole percents; stops it when it should. The lock is not held."""
        if self.engine.faults.rules:
            with self.engine.lock:
                self.suffer(self.engine.faults.at(self.method, "during"))
        self.refuse_interrupted()
        row, percents = self.task_row, int(done * 100) / 100
        if row is not None and percents > row["progress"]:
            with self.engine.lock:
                self.db.set(row, "progress", percents)

    def shares_lock(self) -> None:
        """A point inside an operation where others may see it under way, cancel it, or kill its host."""
        self.suffer(self.engine.faults.at(self.method, "during"))
        self.refuse_interrupted()

    def suffer(self, stroke: Stroke) -> None:
        """Wait, and fail, as the rules say that struck this call."""
        if stroke is NOTHING:
            return
        if stroke.seconds:
            self.engine.pause(stroke.seconds, lambda: self._released(stroke))
        if stroke.error is not None:
            raise stroke.error

    def _released(self, stroke: Stroke) -> bool:
        ruled = any(rule in self.engine.faults.rules for rule in stroke.rules)
        return not ruled or self.cancelled() or bool({self.at, self.engine.pool["master"]} & self.engine.down)
