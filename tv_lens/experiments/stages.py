"""What every experiment of several stages needs: its tasks by name, a clock, and counted nouns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task
from tv_lens.tasks.words import as_task

Say = Callable[[str], object]


@dataclass
class Clock:
    """Says what is being done, and records how long each stage took."""

    say: Say | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Says what is being done, and adds the seconds that the block takes to those of the stage."""
        if self.say is not None:
            self.say(what)
        started = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.seconds[name] = round(spent, 1)


def listed_tasks(tasks: Tasks) -> list[tuple[str | None, Task | str | os.PathLike[str]]]:
    """The tasks one by one, each with the name it was given, if any."""
    if isinstance(tasks, (Task, str, os.PathLike)):
        return [(None, tasks)]
    return list(tasks.items()) if isinstance(tasks, Mapping) else [(None, one) for one in tasks]


def named_tasks(tasks: Tasks) -> dict[str, Task]:
    """The tasks by name.

    Raises:
        EmptySelection: no task was given.
        InvalidArgument: two have the same name.
    """
    named: dict[str, Task] = {}
    for name, one in listed_tasks(tasks):
        task = as_task(one)
        task = task if name is None else task.rename(name)
        if task.name in named:
            raise InvalidArgument(
                "Two tasks have the same name.",
                got=task.name,
                allowed="one name per task",
                do="name each task once, or give a mapping {name: task}.",
            )
        named[task.name] = task
    if not named:
        raise EmptySelection("No task was given.", got="0 tasks", do='give one by its name, such as "present-past".')
    return named


def counted(count: int, what: str) -> str:
    """A number with its noun: "1 pair", "2 pairs"."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def listed(items: Sequence[object]) -> str:
    """Things in a sentence: "a, b and c"."""
    words = [str(one) for one in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
