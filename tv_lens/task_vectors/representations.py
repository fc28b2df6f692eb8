"""Prompts of several tasks, each drawn on its own, and what a model holds at one token of each.

Decodability and the maps use such points. Every prompt is an independent draw from its task. `Task.prompts` with one
seed does not serve, for two reasons. Tasks over the same inputs draw the same inputs under one seed, so each point
would have a twin in every other class, which is its nearest neighbour wherever inputs outweigh the task. And queries
that are repeated in turn are spread more evenly over the other classes than over the point's own. Either would push a
network that encodes nothing below chance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.model.hooked_model import HookedModel
from tv_lens.site import Site
from tv_lens.site import component as entry_of
from tv_lens.task_vectors.activation_table import ActivationTable, read_rows
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenized import TokenizedPrompts, TokenSpan
from tv_lens.tasks.words import TaskLike, as_task

Tasks = TaskLike | Sequence[TaskLike] | Mapping[str, TaskLike]


@dataclass(frozen=True, eq=False)
class Points:
    """Prompts of every class, each cut off after the token that is read, class after class.

    Args:
        classes: their names.
        labels: the class of each point.
        rows: the tokens of each point.
        texts: the whole prompt of each point.
        shown_tokens: the tokens of the answers in its demonstrations.
        shown_text: the text of the answers in its demonstrations.
        shown_places: of each demonstration, how many tokens stand before its answer, and the answer's length in tokens
            and in characters.
    """

    classes: tuple[str, ...]
    labels: Int[Tensor, " point"]
    rows: list[list[int]]
    texts: list[str]
    shown_tokens: list[list[int]]
    shown_text: list[str]
    shown_places: list[list[tuple[int, int, int]]] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, object]:
        """What tells these points from others in a folder's configuration; places follow from the rest."""
        names = ("classes", "labels", "rows", "texts", "shown_tokens", "shown_text")
        return {"class": f"{Points.__module__}.Points", **{name: getattr(self, name) for name in names}}

    @property
    def n_tokens(self) -> int:
        """How many tokens are run, where a prompt that occurs twice is run once."""
        return sum(map(len, {tuple(row) for row in self.rows}))


def classes_of(tasks: Tasks, null: bool | Task, seed: int = 0) -> tuple[dict[str, Task], str | None]:
    """The classes by name, with the Null task last if there is one, and the name of the Null task.

    Args:
        tasks: tasks, their names or files; a mapping gives them other names.
        null: whether the Null task over all their inputs is added; or a Null task to add.
        seed: the draw of the Null task's answers.
    """
    if isinstance(tasks, (Task, str, os.PathLike)):
        tasks = [tasks]
    named = tasks.items() if isinstance(tasks, Mapping) else ((None, one) for one in tasks)
    members = [(name, as_task(one)) for name, one in named]
    members = [one if name is None else one.rename(name) for name, one in members]
    absent = None
    if null and members:
        if isinstance(null, Task):
            task_library.check_null(members, null)
        members.append(null if isinstance(null, Task) else task_library.null(members, seed=seed))
        absent = members[-1].name
    names = [one.name for one in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgument(
            "Two classes have the same name.",
            got=", ".join(twice),
            allowed="one name a class",
            do="give {name: task} instead of a list" + ("; null=False adds no Null task" if absent in twice else ""),
        )
    if len(members) < 2:
        raise EmptySelection(
            "Telling tasks apart needs two of them.",
            got=f"{len(members)} classes",
            allowed="2 or more",
            do="name more tasks; null=True adds the task without a rule",
        )
    return dict(zip(names, members)), absent


def sites_of(model: HookedModel, component: str, layers: int | Sequence[int] | None) -> list[Site]:
    """The sites to read, layer by layer; every layer if None.

    Raises:
        SiteError: the component does not live in layers, has no vector at a token, or the model has no such layer.
    """
    entry = entry_of(component)
    if not entry.layered or entry.position_axis != "pos":
        raise SiteError(
            f"{component} is not a vector that every layer holds at a token.",
            got=f"component={component!r}",
            allowed="a component such as resid_post, attn_out, mlp_out or z",
        )
    chosen = range(model.n_layers) if layers is None else [layers] if isinstance(layers, int) else list(layers)
    if not len(chosen) or len(set(chosen)) < len(chosen):
        raise InvalidArgument("Layers are named once each.", got=f"layers={layers}", allowed="one layer or more")
    return [model.registry.check(Site(component, int(layer)).check(model.shape), write=False) for layer in chosen]


def draw(
    model: HookedModel,
    classes: Mapping[str, Task],
    *,
    shots: int,
    n: int,
    seed: int = 0,
    split: str = "train",
    pos: int | str = -1,
    template: Template | None = None,
) -> Points:
    """`n` prompts of every class as points, cut off after the position that is read.

    A prompt's draw depends on the seed, the name of the class and the prompt's number only: more prompts, shots or
    classes add to fewer and leave those as they are. Tokens after the position cannot change it, so they are not run.

    Args:
        model: the model whose tokenizer is used.
        classes: the tasks by name.
        shots: demonstrations per prompt.
        n: prompts per class.
        seed: the draws.
        split: the split that queries come from.
        pos: a position of each prompt, -1 being its last token; or a kind of span ("y", "separator", "x" of the last
            demonstration, "query_x", "query_separator"), whose last token is meant.
        template: used instead of the tasks' own.
    """
    rows, texts, shown_tokens, shown_text, shown_places = [], [], [], [], []
    for name, one in classes.items():
        seeds = [rng_of("points", seed, name, i).getrandbits(31) for i in range(n)]
        drawn = [one.prompts(shots, 1, seed=own, split=split, template=template) for own in seeds]
        prompts = Prompts(tuple(prompt for single in drawn for prompt in single), name, drawn[0].template)
        tokenized = prompts.tokenize(model)
        ends = _ends(tokenized, pos, shots)
        for prompt, row, end, spans in zip(prompts, tokenized.tokens.rows(), ends, tokenized.token_spans):
            rows.append(row[:end])
            answers = [span for span in spans if span.kind == "y"]
            shown_tokens.append([token for span in answers for token in row[span.start : span.end]])
            shown_places.append(_places(spans, [len(pair.output) for pair in prompt.demonstrations]))
        texts += prompts.texts
        shown_text += ["".join(pair.output for pair in prompt.demonstrations) for prompt in prompts]
    labels = torch.arange(len(classes), device="cpu").repeat_interleave(n)
    return Points(tuple(classes), labels, rows, texts, shown_tokens, shown_text, shown_places)


def _places(spans: Sequence[TokenSpan], n_characters: Sequence[int]) -> list[tuple[int, int, int]]:
    """Of each demonstration: tokens before its answer, tokens of its answer, characters of its answer."""
    begins: dict[int, int] = {}
    for span in spans:
        if span.demo is not None:
            begins[span.demo] = min(begins.get(span.demo, span.start), span.start)
    return [
        (span.start - begins[span.demo], span.end - span.start, n_characters[span.demo])
        for span in spans
        if span.kind == "y" and span.demo is not None
    ]


def _ends(tokenized: TokenizedPrompts, pos: int | str, shots: int) -> list[int]:
    """How many tokens of each prompt are run, so that the last of them is the one that is read."""
    if isinstance(pos, int):
        return (tokenized.tokens.index(pos) + 1).tolist()
    outside = pos in ("prefix", "bos", "query_x", "query_separator")
    if not outside and shots == 0:
        raise InvalidArgument(
            "Without demonstrations no demonstration can be read.",
            got=f"pos={pos!r}, shots=0",
            allowed="an integer position, 'query_x' or 'query_separator'",
        )
    return (tokenized.position_of(pos, None if outside else shots - 1) + 1).tolist()


def read(
    model: HookedModel,
    points: Points,
    sites: Sequence[Site],
    advance: Callable[[int], object] = lambda steps: None,
    store: str | os.PathLike[str] | None = None,
) -> ActivationTable:
    """What each site holds at the last token of every point, on the host in float32, with its heads concatenated.

    Args:
        model: the model that is run.
        points: the prompts.
        sites: the sites to record.
        advance: called with the number of tokens that a pass has finished.
        store: a folder for the table, for models whose layers do not fit in memory; see `activation_table.read_rows`.
    """
    return read_rows(model, points.rows, sites, advance=advance, store=store)


def read_together(
    model: HookedModel,
    several: Mapping[int, Points],
    sites: Sequence[Site],
    advance: Callable[[int], object] = lambda steps: None,
    store: str | os.PathLike[str] | None = None,
) -> dict[int, ActivationTable]:
    """The table of each shot count; prompts of several shot counts begin alike, and what they share is run once.

    Args:
        model: the model that is run.
        several: the points by shot count.
        sites: the sites to record.
        advance: called with the number of tokens that a pass has finished.
        store: a folder for the table.
    """
    rows = [row for points in several.values() for row in points.rows]
    table = read_rows(model, rows, sites, advance=advance, store=store)
    sizes = [len(points.rows) for points in several.values()]
    return {count: table.of(part) for count, part in zip(several, torch.arange(sum(sizes), device="cpu").split(sizes))}


def bag(rows: Sequence[Sequence[object]]) -> Float[Tensor, "point item"]:
    """How often each item occurs in each row; one column of zeros where no row has any item.

    Example:
        >>> bag(["ab", "bb", ""]).tolist()
        [[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]
    """
    items = {item: place for place, item in enumerate(dict.fromkeys(item for row in rows for item in row))}
    counts = torch.zeros(len(rows), max(1, len(items)), dtype=torch.float32, device="cpu")
    for i, row in enumerate(rows):
        for item in row:
            counts[i, items[item]] += 1
    return counts
