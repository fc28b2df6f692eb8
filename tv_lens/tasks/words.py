"""Every task by its name or file: the lists that come with the library, what is derived from them, and Null."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.tasks.bitwise import OPERATIONS, bitwise_family, bitwise_task
from tv_lens.tasks.by_name import finds_tasks
from tv_lens.tasks.conllu_files import is_conllu
from tv_lens.tasks.definition import Task, split_alike, together
from tv_lens.tasks.derived import DERIVED
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.files import SUFFIXES, pairs_of, read_pairs
from tv_lens.tasks.null_rules import NullRule
from tv_lens.tasks.pair_faults import Columns, check_columns
from tv_lens.tasks.pos import CLASSES, pos_family, pos_task
from tv_lens.tasks.positions import mappings_family, orders_family, positions_family
from tv_lens.tasks.templates import ARROW, IO, QA, Template, as_template
from tv_lens.tasks.wordlists import pair_list, pair_lists

TaskLike = Task | str | os.PathLike[str]
SOURCE = "tv_lens"

# name of the inverse task -> (the list that it inverts, its description)
_REVERSED = {
    "past-present": ("present-past", "past tense -> verb, present-past read backwards"),
    "plural-singular": ("singular-plural", "plural -> noun, singular-plural read backwards"),
    "capital-country": ("country-capital", "capital city -> country, country-capital read backwards"),
    "french-english": ("english-french", "French word -> English word, english-french read backwards"),
    "spanish-english": ("english-spanish", "Spanish word -> English word, english-spanish read backwards"),
}
_FAMILIES = {
    "verbs": ("present-past", "present-gerund", "present-third"),
    "adjectives": ("comparative", "superlative"),
    "countries": ("country-capital", "country-language", "country-demonym"),
    "languages": ("english-french", "english-spanish"),
    "letters": ("capitalize", "uppercase", "first-letter", "last-letter"),
    "lists": ("first-of-three", "second-of-three", "last-of-three"),
}
# Families with a Null task of their own: the function that makes each, and its template.
_MADE: dict[str, tuple[Callable[..., tuple[Task, ...]], Template]] = {
    "pos": (pos_family, IO),
    "bitwise": (bitwise_family, ARROW),
    "positions": (positions_family, QA),
    "positions-5": (partial(positions_family, 5), QA),
    "orders": (orders_family, QA),
    "mappings": (mappings_family, QA),
}
_POS = {f"first-{word_class}": word_class for word_class in CLASSES}
_BITWISE = {f"bitwise-{operation.lower()}": operation for operation in OPERATIONS}


def names() -> tuple[str, ...]:
    """The names of all built-in tasks.

    Example:
        >>> "present-past" in names()
        True
    """
    return tuple(sorted((*pair_lists(), *_REVERSED, *DERIVED, *_POS, *_BITWISE)))


def families() -> tuple[str, ...]:
    """The names of all built-in families.

    Example:
        >>> families()[:3]
        ('verbs', 'adjectives', 'countries')
    """
    return (*_FAMILIES, *_MADE)


@finds_tasks
@checks_kinds
def task(
    name_or_path: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | pd.DataFrame,
    *,
    template: Template | str | None = None,
    seed: int = 0,
    name: str | None = None,
    conflicts: str = "error",
    columns: Columns = None,
) -> Task:
    """A built-in task by its name, or the task that a file, a dictionary or a list of pairs holds.

    Args:
        name_or_path: one of `names()`, or a path: it has a separator, or ends in .json, .jsonl, .csv, .tsv, .conllu or
            .conllu.gz. A file of tagged sentences asks for the first noun; `ewt.conllu#verb` asks for the first verb.
            Or the pairs themselves: a dictionary from input to answer, a list of pairs or of dictionaries, or a table
            of pandas with the columns "input" and "output", or those of `columns`.
        template: the text around inputs and answers, or the name of a built-in template such as "arrow"; None: `QA`,
            `IO` for sentences, `ARROW` for binary numbers.
        seed: how the pairs are split into train, dev and test.
        name: what results call it; the built-in name, or the file's name without its ending, if None.
        conflicts: what to do where a file gives one input two answers: "error", or "drop" to leave such inputs out.
        columns: the names of the columns of a table (of JSON, the keys) that hold inputs and answers, such as
            ("animal", "young"); or their numbers, such as (0, 1), where the first line of a table is a pair. If None,
            the names are "input" and "output"; where a first line could be either, a warning or an error says so.

    Raises:
        UnknownName: there is no such task; names the nearest ones.
        TaskFileError: the file cannot be read; names the line.

    Example:
        >>> task("present-past").lookup["go"]
        'went'
    """
    if conflicts not in ("error", "drop"):
        raise unknown("way with conflicting pairs", conflicts, ("error", "drop"))
    template = None if template is None else as_template(template)
    check_columns(columns)
    if isinstance(name_or_path, pd.DataFrame):
        name_or_path = name_or_path.to_dict("records")
    if not isinstance(name_or_path, (str, os.PathLike)):
        pairs = pairs_of(name_or_path, conflicts, columns)
        return Task(name or "pairs", pairs, template=template or QA, seed=seed)
    if is_conllu(name_or_path):
        path, _, word_class = str(name_or_path).partition("#")
        stem = Path(path).name.partition(".")[0]
        word_class = word_class or "noun"
        return pos_task(name or f"{stem}-first-{word_class}", word_class, path, template=template or IO, seed=seed)
    if is_path(name_or_path):
        path = Path(name_or_path)
        file = read_pairs(path, conflicts, columns)
        return Task(
            name or path.stem,
            file.pairs,
            template=template or QA,
            description=file.description,
            source=file.source or path.name,
            seed=seed,
        )
    known = str(name_or_path).strip().lower().replace("_", "-").replace(" ", "-")
    if known not in names():
        raise unknown("task", name_or_path, names(), do="tv.task also takes the path of a file of pairs")
    if known in _POS:
        return pos_task(name or known, _POS[known], template=template or IO, seed=seed)
    if known in _BITWISE:
        return bitwise_task(name or known, _BITWISE[known], template=template or ARROW, seed=seed)
    listed, description = _builtin(known)
    return Task(name or known, listed, template=template or QA, description=description, source=SOURCE, seed=seed)


def as_task(task_like: TaskLike) -> Task:
    """The task itself, or what `task` returns for a name or a path."""
    return task_like if isinstance(task_like, Task) else task(task_like)


@checks_kinds
def family(
    name: str | Iterable[TaskLike], *, template: Template | str | None = None, seed: int | None = None, **options: Any
) -> tuple[Task, ...]:
    """Tasks that answer the same inputs differently, restricted to the inputs that they share.

    Only the answers of the demonstrations distinguish such tasks, so a probe cannot name the task by its inputs.

    Args:
        name: one of `families()`, such as "pos", "bitwise" or "verbs"; or several tasks, their names or files.
        template: the text around inputs and answers; the tasks' own if None.
        seed: how the pairs are split; if None, 0 for built-in families, and their own for the tasks that are passed.
        options: for "pos", `source=` (a CoNLL-U file, "ptb"), `words=` and `tags=`; for "bitwise", `width=`, `style=`
            and `n=`; for "positions" and "positions-5", `n=` and `vocabulary=`, for "orders" `length=` and
            `vocabulary=`. See `tv_lens.tasks.pos.pos_family`, `tv_lens.tasks.bitwise.bitwise_family`, and the functions
            of `tv_lens.tasks.positions`.

    Raises:
        UnknownName: there is no such family.
        EmptySelection: the tasks share too few inputs.

    Example:
        >>> [member.name for member in family("adjectives")]
        ['comparative', 'superlative']
        >>> [member.name for member in family("bitwise", width=3)]
        ['AND', 'NAND', 'OR', 'NOR', 'XOR', 'XNOR']
    """
    template = None if template is None else as_template(template)
    if isinstance(name, str) and name in _MADE:
        make, usual = _MADE[name]
        return split_alike(make(**options, template=template or usual, seed=seed or 0))
    if options:
        raise InvalidArgument(
            f"Only the families {', '.join(_MADE)} have options.", got=", ".join(options), allowed="template=, seed="
        )
    if not isinstance(name, str):
        members = [_with(as_task(one), template, seed) for one in name]
    elif name in _FAMILIES:
        members = [task(member, template=template, seed=seed or 0) for member in _FAMILIES[name]]
    else:
        raise unknown("family of tasks", name, families())
    return _shared(members)


def _with(one: Task, template: Template | None, seed: int | None) -> Task:
    return one.replace(**({"template": template} if template else {}), **({} if seed is None else {"seed": seed}))


def _shared(members: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, each restricted to the inputs that all of them have."""
    if len(members) < 2 or len({one.name for one in members}) < len(members):
        raise InvalidArgument(
            "A family has two tasks or more, each with a name of its own.",
            got=", ".join(one.name for one in members) or "no task",
        )
    shared = set.intersection(*(set(member.lookup) for member in members))
    if len(shared) < 5:
        raise EmptySelection(
            "The tasks of a family answer the same inputs.",
            got=f"{len(shared)} inputs in common of " + ", ".join(f"{len(one)} ({one.name})" for one in members),
            allowed="5 or more",
            do="name tasks over the same inputs; tv.decodability takes others, too.",
        )
    return split_alike([member.restricted(shared) for member in members])


@checks_kinds
def null(tasks: TaskLike | Sequence[TaskLike], seed: int = 0, name: str = "null") -> Task:
    """The task without a rule: the same inputs, each with an answer drawn at random from the tasks' answers.

    No input gets itself or an answer that one of the tasks gives to it. The families "pos" and "bitwise" have Null
    tasks of their own: a random word of the sentence, and random bits.

    Args:
        tasks: one task or several.
        seed: the draw.
        name: what results call it.

    Raises:
        InvalidArgument: the answers that were drawn are those of one of the tasks.

    Example:
        >>> nothing = null("country-capital")
        >>> nothing.lookup["France"] == "Paris"
        False
    """
    listed = [tasks] if isinstance(tasks, (Task, str, os.PathLike)) else tasks
    several = [as_task(one) for one in listed]
    if not several:
        raise EmptySelection("The Null task needs a task whose inputs it takes.", got="0 tasks")
    right: dict[str, set[str]] = {}
    for one in several:
        for pair in one:
            right.setdefault(pair.input, {pair.input}).add(pair.output)
    rule = several[0].null_rule if len({one.null_rule for one in several}) == 1 else None
    if rule is None:
        # With repeats, so that frequent answers stay frequent.
        answers = [pair.output for one in several for pair in one]
        pairs = [(source, _wrong(source, answers, right_answers, seed)) for source, right_answers in right.items()]
    else:
        pairs = [(source, rule(source, seed)) for source in right]
    titles = ", ".join(one.name for one in several)
    answers_are = "answers drawn at random from theirs" if rule is None else rule.description
    nothing = Task(
        name,
        pairs,
        template=_null_template(several, rule),
        description=f"no rule: inputs of {titles}, {answers_are}",
        source=several[0].source,
        seed=several[0].seed,
        instruction="" if rule is None else rule.instruction,
        null_rule=rule,
        twins=together(several),
    )
    check_null(several, nothing)
    return nothing


@checks_kinds
def check_null(tasks: Iterable[Task], nothing: Task) -> None:
    """Raises `InvalidArgument` where a Null task answers as one of these tasks does.

    Example:
        >>> check_null([task("present-past")], null("present-past"))
    """
    for one in tasks:
        shared = [source for source in nothing.lookup if source in one.lookup]
        if shared and all(nothing.lookup[source] == one.lookup[source] for source in shared):
            raise InvalidArgument(
                f"The Null task gives the answers of {one.name!r}, so it has a rule.",
                got=f"{len(shared)} inputs, one answer each",
                allowed="answers that follow from no input",
                do="take more inputs (wider operands, longer sentences), or another seed=.",
            )


def _null_template(tasks: Sequence[Task], rule: NullRule | None) -> Template:
    """The tasks' template; where it begins with an instruction, with that of the Null rule, or with none, instead."""
    first = tasks[0]
    prefix = first.template.prefix
    if not first.instruction or not prefix.startswith(first.instruction):
        return first.template
    instruction = "" if rule is None else rule.instruction
    return replace(first.template, prefix=instruction + prefix.removeprefix(first.instruction))


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this is the path of a file rather than the name of a built-in task."""
    if not isinstance(name_or_path, str):
        return True
    separated = any(mark in name_or_path for mark in (os.sep, os.altsep, "/") if mark)
    path = Path(name_or_path)
    return separated or is_conllu(name_or_path) or path.suffix.lower() in SUFFIXES or path.is_file()


def _wrong(source: str, answers: Sequence[str], right: set[str], seed: int) -> str:
    free = [answer for answer in answers if answer not in right]
    if not free:
        raise EmptySelection(
            "The Null task needs more answers to draw from.",
            got=f"no answer for {source!r} but right ones",
            allowed="tasks with two different answers or more",
        )
    return rng_of("null", seed, source).choice(free)


@cache
def _builtin(name: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The pairs and the description of a built-in task."""
    if name in _REVERSED:
        forward, description = _REVERSED[name]
        inverse = Task(forward, pair_list(forward).pairs).reversed(name)
        return tuple((pair.input, pair.output) for pair in inverse), description
    if name in DERIVED:
        build, description = DERIVED[name]
        return tuple(build()), description
    listed = pair_list(name)
    return tuple((pair.input, pair.output) for pair in listed.pairs), listed.description
