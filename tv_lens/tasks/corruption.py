"""Clean prompts and their corrupted twins: what is drawn, and how the demonstrations of a twin are corrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, PromptError, unknown
from tv_lens.tasks.by_name import task_by_name
from tv_lens.tasks.drawing import Draw, check_counts, draw, other_labels, rng_of, shuffled_labels, take
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.split_pairs import SplitPairs
from tv_lens.tasks.templates import Pair, Template
from tv_lens.tasks.tokenizing import tokenizer_of
from tv_lens.tasks.wordlists import common_words

CORRUPTIONS = ("shuffle_labels", "other_task", "no_demonstrations", "random_words")
Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Pools:
    """What a set of pairs is drawn from.

    Args:
        shown: pairs for demonstrations.
        queries: pairs for queries.
        labels: what foils are taken from.
        relabel: the other task's answer to each input, if the two tasks share their inputs.
        foreign: the other task's demonstrations, if they do not.
        words: what takes the place of answers under "random_words".
    """

    shown: tuple[Pair, ...]
    queries: tuple[Pair, ...]
    labels: tuple[str, ...]
    relabel: dict[str, str] | None = None
    foreign: tuple[Pair, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairRecipe:
    """The options of a set of pairs, from which it is drawn, and drawn again from fewer words."""

    task: SplitPairs
    other: SplitPairs | None
    corrupt: str
    shots: int
    n: int | None
    seed: int
    split: str
    template: Template

    @classmethod
    def checked(
        cls, task: SplitPairs, *, corrupt: str, other: SplitPairs | str | PathLike[str] | None, shots: int, **rest: Any
    ) -> PairRecipe:
        """The recipe, if the corruption exists, fits the shots, and has its other task."""
        if corrupt not in CORRUPTIONS:
            raise unknown("corruption", corrupt, CORRUPTIONS)
        check_counts(shots, rest["n"])
        least = 2 if corrupt == "shuffle_labels" else 1
        if shots < least:
            raise InvalidArgument(
                f"The corruption {corrupt!r} needs more demonstrations to corrupt.",
                got=f"shots={shots}",
                allowed=f"{least} or more",
                do="raise shots" + (", or use corrupt='random_words'" if shots == 1 else ""),
            )
        if (corrupt == "other_task") != (other is not None):
            other_name = None if other is None else str(getattr(other, "name", other))
            raise InvalidArgument(
                "The corruption 'other_task' needs another task, and no other corruption does.",
                got=f"corrupt={corrupt!r}, other={other_name!r}",
                allowed="corrupt='other_task' together with other=<a task, its name or its file>",
            )
        if other is not None and not isinstance(other, SplitPairs):
            other = task_by_name(other)
        return cls(task=task, other=other, corrupt=corrupt, shots=shots, **rest)

    def draw(self) -> PromptPairs:
        """The pairs, drawn from every word there is."""
        return self._draw(self.pools())

    def uniform(self, model_or_tokenizer: Any) -> PromptPairs:
        """The pairs, drawn from words of the commonest token shape."""
        tokenizer = tokenizer_of(model_or_tokenizer)
        pools = alike(self, self.pools(), tokenizer)
        pairs = self._draw(pools)
        tokens = pairs.tokenize(tokenizer)
        matched = tokens.clean.is_uniform and tokens.corrupted.is_uniform
        if not matched or (self.corrupt != "no_demonstrations" and not tokens.is_aligned):
            # A word's shape is measured between words like it; it may differ with a tokenizer that looks further.
            raise MisalignedPrompts(
                "This tokenizer cuts words differently depending on their neighbours.",
                got=repr(tokens),
                allowed="prompts of one token structure",
                do="use a template that parts words from what surrounds them, with spaces or line breaks",
            )
        return pairs

    def pools(self) -> Pools:
        """Everything that may be drawn."""
        shown, queries, labels = self.task.split("train"), self.task.split(self.split), self.task.labels
        if self.corrupt == "random_words":
            words = tuple(word for word in common_words() if word not in set(labels))
            return Pools(shown, queries, labels, words=words)
        if self.other is None:
            return Pools(shown, queries, labels)
        known = self.other.lookup
        if 2 * sum(pair.input in known for pair in self.task) < len(self.task):
            return Pools(shown, queries, self.other.labels, foreign=self.other.split("train"))

        def differing(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
            return tuple(pair for pair in pairs if known.get(pair.input, pair.output) != pair.output)

        return Pools(differing(shown), differing(queries), self.other.labels, relabel=known)

    def _draw(self, pools: Pools) -> PromptPairs:
        draws = draw(
            pools.shown,
            pools.queries,
            shots=self.shots,
            n=self.n,
            seed=self.seed,
            split=self.split,
            task=self.task.name,
        )
        clean, corrupted = [], []
        for i, one in enumerate(draws):
            foils = self._foils(pools, one.query, i)
            clean.append(Prompt.build(self.template, one.demonstrations, one.query, foils))
            corrupted.append(Prompt.build(self.template, self._corrupt(pools, one, i), one.query, foils))
        sides = self._side(clean, "clean"), self._side(corrupted, "corrupted")
        return PromptPairs(*sides, corrupt=self.corrupt, drawn_by=self)

    def _side(self, items: list[Prompt], side: str) -> Prompts:
        recipe = self.task.recipe(
            shots=self.shots, n=len(items), seed=self.seed, split=self.split, template=self.template
        )
        if side == "corrupted":
            recipe["corrupt"] = self.corrupt
            if self.other is not None:
                recipe["other"] = {"task": self.other.name, "fingerprint": self.other.fingerprint}
        return Prompts(tuple(items), task=self.task.name, template=self.template, recipe=recipe)

    def _foils(self, pools: Pools, query: Pair, i: int) -> tuple[str, ...]:
        foils = other_labels(pools.labels, query.output, rng_of(self.seed, self.split, "foil", i))
        if pools.relabel is not None:
            twin = pools.relabel[query.input]
            foils = (twin, *(foil for foil in foils if foil != twin))
        if not foils:
            raise PromptError(
                f"{self.task.name!r} has no second answer to hold {query.output!r} against.",
                got=f"{len(pools.labels)} different answers",
                allowed="two different answers or more",
                do="use a task with more answers, or corrupt='other_task'",
            )
        return foils

    def _corrupt(self, pools: Pools, one: Draw, i: int) -> tuple[Pair, ...]:
        rng = rng_of(self.seed, self.split, self.corrupt, i)
        if self.corrupt == "no_demonstrations":
            return ()
        if self.corrupt == "shuffle_labels":
            return shuffled_labels(one.demonstrations, rng)
        if self.corrupt == "random_words":
            words = take(pools.words, len(one.demonstrations), rng)
            return tuple(replace(pair, output=word) for pair, word in zip(one.demonstrations, words))
        if pools.relabel is not None:
            return tuple(replace(pair, output=pools.relabel[pair.input]) for pair in one.demonstrations)
        strangers = [pair for pair in pools.foreign if pair.input != one.query.input]
        if len(strangers) < self.shots:
            raise EmptySelection(
                f"{self.other.name!r} has too few pairs for so many demonstrations.",
                got=f"shots={self.shots}",
                allowed=f"at most {len(strangers)}",
            )
        return tuple(take(strangers, self.shots, rng))


def shapes(pairs: Iterable[Pair], template: Template, tokenizer: Any) -> dict[Pair, Shape]:
    """The tokens that each pair takes: as a demonstration, after another, and as a query with its answer."""
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        return {}
    probes = Prompts(tuple(Prompt.build(template, (pair, pair), pair) for pair in pairs), template=template)
    tokens = probes.tokenize(tokenizer)
    return {pair: (len(answer), *spans) for pair, answer, spans in zip(pairs, tokens.answer_ids, tokens.token_spans)}


def alike(recipe: PairRecipe, pools: Pools, tokenizer: Any) -> Pools:
    """The pools, reduced to the pairs of the commonest token shape that has enough of them.

    Raises:
        EmptySelection: no shape has enough pairs to show and to ask.
    """
    both = tuple(dict.fromkeys((*pools.shown, *pools.queries)))
    twins = {}
    if pools.relabel is not None:
        twins = {pair: Pair(pair.input, pools.relabel[pair.input]) for pair in both}
    shape_of = shapes((*both, *twins.values(), *pools.foreign), recipe.template, tokenizer)
    matched = {pair: shape_of[pair] for pair in both if shape_of[pair] == shape_of[twins.get(pair, pair)]}
    matched |= {pair: shape_of[pair] for pair in pools.foreign}
    most = 0
    for key, _ in sorted(Counter(matched[pair] for pair in both if pair in matched).items(), key=_commonest):
        smaller = _only(pools, {pair for pair, shape in matched.items() if shape == key})
        if pools.words and smaller.shown:
            stand_ins = [Pair(smaller.shown[0].input, word) for word in pools.words]
            cut = shapes(stand_ins, recipe.template, tokenizer)
            smaller = replace(smaller, words=tuple(pair.output for pair in stand_ins if cut[pair] == key))
        room = _room(recipe, pools, smaller)
        if room >= recipe.shots:
            return smaller
        most = max(most, room)
    raise EmptySelection(
        f"No token shape of {recipe.task.name!r} has enough pairs for uniform prompts.",
        got=f"shots={recipe.shots}",
        allowed=f"at most {most} shots with this tokenizer and template",
        do="fewer shots, or pairs without .uniform and positions counted from the end",
    )


def _commonest(entry: tuple[Shape, int]) -> tuple[int, str]:
    return -entry[1], str(entry[0])  # ties are broken by name, so that the choice is the same everywhere


def _only(pools: Pools, pairs: set[Pair]) -> Pools:
    """The pools without any other pairs."""
    shown, queries, foreign = (
        tuple(pair for pair in pool if pair in pairs) for pool in (pools.shown, pools.queries, pools.foreign)
    )
    return replace(pools, shown=shown, queries=queries, foreign=foreign)


def _room(recipe: PairRecipe, pools: Pools, smaller: Pools) -> int:
    """The largest number of demonstrations that the smaller pools can give to a query."""
    if not smaller.queries:
        return 0
    limits = [len(smaller.shown) - (recipe.split == "train")]
    limits += [len(smaller.foreign) - 1] if pools.foreign else []
    limits += [len(smaller.words)] if pools.words else []
    return max(0, min(limits))
