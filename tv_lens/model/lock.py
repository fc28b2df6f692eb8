"""One lock for each model: threads take turns, coroutines are refused, and nobody waits for ever without a word.

A turn is a context. It counts only as long as its object lives, so an interrupt at any line, even between taking the
lock and entering the `with` block, cannot leave the model locked.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from weakref import ref

import torch

from tv_lens.errors import ModelInUse

SAYS_AFTER = 3.0  # seconds until a thread that waits for the model says so
GIVES_UP_AFTER = 8.0  # seconds without any pass after which the holder is taken to wait for the one who waits
_process = {"forked": False, "threads": 1}


@dataclass(frozen=True)
class Caller:
    """Who calls: a thread, and in an event loop also the task that runs."""

    thread: int
    name: str
    task: Any = None

    @classmethod
    def now(cls) -> Caller:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop runs in this thread
            task = None
        thread = threading.current_thread()
        return cls(threading.get_ident(), thread.name, task)

    def __str__(self) -> str:
        return f"thread {self.name!r}" if self.task is None else f"task {self.task.get_name()!r} in {self.name!r}"


class Turn:
    """One caller's turn with a model, as a context; turns of one caller nest.

    Args:
        lock: the model's lock.
        who: what the turn is for, in messages to those who wait.
        passes: whether a forward pass runs in it; a turn without one may be waiting for somebody else.
    """

    def __init__(self, lock: ModelLock, who: str, passes: bool = False):
        self.lock, self.who, self.passes, self.caller = lock, who, passes, Caller.now()

    def __enter__(self) -> Turn:
        self.lock.take(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.leave(self)


class ModelLock:
    """Who has the model now.

    Threads wait for each other. Another task of the same event loop is refused, since to wait for it would stop the
    loop. A caller that waits says so, and where the holder runs no pass for a while it raises instead of waiting on.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: list[ref[Turn]] = []
        self._last_use = time.monotonic()
        self._kept: list[Turn] = []  # of `acquire`, which has no context to keep its turn

    def turn(self, who: str, passes: bool = False) -> Turn:
        """A context in which the calling thread, and in an event loop the running task, alone uses the model."""
        return Turn(self, who, passes)

    def take(self, turn: Turn, timeout: float | None = None) -> bool:
        """Takes the model for a turn, after those of others are over; False only where a timeout is given and reached.

        Raises:
            ModelInUse: another task of this event loop has the model, or another thread has it and runs nothing.
        """
        began, said = time.monotonic(), False
        while (other := self._tried(turn)) is not None:
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                return False
            if other.caller.thread == turn.caller.thread:
                raise ModelInUse(
                    f"{turn.who}: another task of this event loop is inside {other.who}, whose edits must not be seen.",
                    got=f"{other.caller} has the model, {turn.caller} wants it",
                    do="await nothing inside the context, or give each task a model of its own.",
                )
            idle = time.monotonic() - max(self._last_use, began)
            if idle >= GIVES_UP_AFTER and not other.passes and timeout is None:
                raise ModelInUse(
                    f"{turn.who}: another thread holds the model in {other.who} and runs nothing.",
                    got=f"{turn.caller} has waited {waited:.0f} s for {other.caller}",
                    do="if that thread waits for this one, neither can go on: leave the context first, or let the "
                    "thread that entered it make the calls.",
                )
            if waited >= SAYS_AFTER and not said:
                warnings.warn(
                    f"{turn.who} in {turn.caller} waits for the model, which {other.caller} holds in {other.who}",
                    stacklevel=4,
                )
                said = True
            time.sleep(min(0.01, 0.0002 + waited / 50))
        return True

    def _tried(self, turn: Turn) -> Turn | None:
        """Adds the turn if nobody else has one; else the turn to wait for."""
        with self._mutex:
            alive = [(link, one) for link in self._turns if (one := link()) is not None]
            others = [one for _, one in alive if one.caller != turn.caller and not _outlived(one, turn)]
            if others:
                return next((one for one in others if one.passes), others[-1])
            self._turns = [*(link for link, _ in alive), ref(turn)]
            self._last_use = time.monotonic()
        return None

    def leave(self, turn: Turn) -> None:
        """Ends a turn; one that is over already may be ended again."""
        with self._mutex:
            self._turns = [link for link in self._turns if link() not in (None, turn)]
            self._last_use = time.monotonic()

    def is_free_for(self, caller: Caller) -> bool:
        """Whether nobody but this caller has a turn."""
        return all(one is None or one.caller == caller for one in [link() for link in list(self._turns)])

    def renew(self) -> None:
        """In a forked child: turns of threads that do not exist here are over."""
        self._mutex, here = threading.Lock(), threading.get_ident()
        self._turns = [link for link in self._turns if (one := link()) is not None and one.caller.thread == here]

    # ---- as threading.RLock ---------------------------------------------------------------------------------------

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self, timeout: float | int = -1) -> bool:
        turn = self.turn("registry.lock")
        if not self.take(turn, None if timeout < 0 else float(timeout)):
            return False
        self._kept.append(turn)
        return True

    def release(self) -> None:
        if not self._kept:
            raise RuntimeError("release of a lock that was not acquired")
        self.leave(self._kept.pop())


def _outlived(turn: Turn, by: Turn) -> bool:
    """Whether a turn was left open by a task of the same thread that has ended, as by a notebook's earlier cell."""
    task = turn.caller.task
    return turn.caller.thread == by.caller.thread and task is not None and task.done()


def check_process() -> None:
    """Raises `ModelInUse` in a forked child whose first product with several threads would never return."""
    threads = torch.get_num_threads()
    if _process["forked"]:
        if threads > 1 and _process["threads"] > 1:
            raise ModelInUse(
                "This process was forked from one in which torch had used several threads; a pass here would hang.",
                got=f"{threads} threads in a forked child",
                do="torch.set_num_threads(1) first thing in the child, or start processes by spawn: "
                'multiprocessing.get_context("spawn").',
            )
    elif threads > _process["threads"]:
        _process["threads"] = threads


def _in_child() -> None:
    _process["forked"] = True


os.register_at_fork(after_in_child=_in_child)
