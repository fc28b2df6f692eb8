"""Tasks: pairs of words under one rule, and the prompts that are made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any
from unicodedata import normalize

from tv_lens.errors import EmptySelection, InvalidArgument, WrongKind
from tv_lens.kinds import checks_kinds, checks_methods
from tv_lens.renamed import renamed_attributes
from tv_lens.tasks.audit import TaskAudit, audit
from tv_lens.tasks.corruption import PairRecipe
from tv_lens.tasks.drawing import SPLITS, draw, other_labels, rng_of
from tv_lens.tasks.null_rules import NullRule
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.split_pairs import SplitPairs
from tv_lens.tasks.templates import QA, Pair, Template, as_template
from tv_lens.tasks.twins import Groups, merged


@checks_methods
@dataclass(frozen=True, init=False)
class Task(SplitPairs):
    """Pairs (input, answer) under one rule, with the template that asks for it.

    The pairs are split 60/20/20 into train, dev and test by a hash of the input and the task's seed: no two
    splits share a pair, an input or near-duplicates (swapped operands, reversed pairs, another case, a shared stem),
    and the tasks of a family are split alike. Demonstrations are always shown from train; queries come from the
    split that is named.

    Args:
        name: what results call it.
        pairs: `Pair`s or (input, answer) tuples; repeats of a pair are dropped.
        template: the text around inputs and answers, or the name of a built-in template.
        description: the rule in one line.
        source: where the pairs come from.
        seed: the split.
        instruction: what `instructed` puts first the whole prompt, such as "Find the first noun in the sentence.".
        null_rule: how the Null task of the same family answers, where the family has a rule of its own for it.
        twins: groups of inputs that lie in one split; the near-duplicates that `near_duplicates` finds if None.

    Example:
        >>> numbers = Task("successor", [(str(i), str(i + 1)) for i in range(20)])
        >>> numbers
        Task('successor', 20 pairs: '0' -> '1', '1' -> '2', ...; train 12, dev 4, test 4)
        >>> print(numbers.prompts(shots=1, n=1)[0].text)
        Q: 3
        A: 4
        <BLANKLINE>
        Q: 17
        A:
    """

    name: str
    items: tuple[Pair, ...]
    template: Template = QA
    description: str = ""
    source: str = ""
    seed: int = 0
    instruction: str = ""
    null_rule: NullRule | None = None
    twins: Groups | None = None

    @checks_kinds
    def __init__(
        self,
        name: str,
        pairs: Iterable[Pair | Sequence[str]],
        template: Template | str = QA,
        description: str = "",
        source: str = "",
        seed: int = 0,
        instruction: str = "",
        null_rule: NullRule | None = None,
        twins: Iterable[Iterable[str]] | None = None,
    ) -> None:
        fields = dict(
            template=as_template(template),
            description=description,
            source=source,
            seed=seed,
            instruction=instruction,
            null_rule=null_rule,
            twins=None if twins is None else tuple(tuple(group) for group in twins),
        )
        for key, value in dict(fields, name=name, items=_unique(name, pairs)).items():
            object.__setattr__(self, key, value)
        if not self.items:
            raise EmptySelection(f"The task {name!r} has no pairs.", got="0 pairs", allowed="at least one")

    def prompts(
        self,
        shots: int,
        n: int | None = None,
        seed: int = 0,
        split: str = "test",
        template: Template | str | None = None,
        foils: bool = False,
    ) -> Prompts:
        """Prompts with demonstrations from train and queries from a split.

        Args:
            shots: demonstrations per prompt.
            n: number of prompts; None asks every pair of the split once.
            seed: the draw; more shots or prompts under one seed only add to fewer.
            split: the split that queries come from.
            template: used instead of the task's own.
            foils: whether each prompt has a foil, another label of the task that the answer is compared with.

        Raises:
            EmptySelection: the split holds fewer pairs than the prompts need.
        """
        template = as_template(template or self.template)
        draws = draw(self.split("train"), self.split(split), shots=shots, n=n, seed=seed, split=split, task=self.name)
        items = []
        for i, (shown, query) in enumerate(draws):
            wrong = other_labels(self.labels, query.output, rng_of(seed, split, "foil", i)) if foils else ()
            items.append(Prompt.build(template, shown, query, wrong))
        recipe = self.recipe(shots=shots, n=len(items), seed=seed, split=split, template=template)
        return Prompts(tuple(items), task=self.name, template=template, recipe=recipe)

    def queries(
        self,
        n: int | None = None,
        seed: int = 0,
        split: str = "test",
        template: Template | str | None = None,
        foils: bool = False,
    ) -> Prompts:
        """Prompts without demonstrations; see `prompts`."""
        return self.prompts(0, n, seed=seed, split=split, template=template, foils=foils)

    def pairs(
        self,
        shots: int,
        n: int | None = None,
        corrupt: str = "shuffle_labels",
        other: Task | str | PathLike[str] | None = None,
        seed: int = 0,
        split: str = "test",
        template: Template | str | None = None,
    ) -> PromptPairs:
        """Clean prompts, each beside a twin whose demonstrations no longer show the task.

        Args:
            shots: demonstrations per clean prompt.
            n: number of pairs of prompts; None asks every pair of the split once.
            corrupt: "shuffle_labels" shuffles the answers of the demonstrations, so that as few as
                possible stay where they belong; "other_task" shows another task's answers for the same
                inputs, or its whole demonstrations when it shares less than half of the inputs;
                "random_words" puts common words in the place of the answers; "no_demonstrations" shows the query
                alone.
            other: the other task, or its name or file, for "other_task".
            seed: the draw.
            split: the split that queries come from.
            template: used instead of the task's own.

        The foil is another label of the task; under "other_task" it is the other task's answer.

        Raises:
            EmptySelection: the split holds fewer pairs than the prompts need.
            InvalidArgument: the corruption does not fit the shots or lacks its other task.
        """
        recipe = PairRecipe.checked(
            self,
            corrupt=corrupt,
            other=other,
            shots=shots,
            n=n,
            seed=seed,
            split=split,
            template=as_template(template or self.template),
        )
        return recipe.draw()

    def audit(self, model_or_tokenizer: Any, template: Template | str | None = None) -> TaskAudit:
        """How a tokenizer splits the answers, and what a constant guess or a copied input would score."""
        return audit(self, model_or_tokenizer, as_template(template or self.template))

    def instructed(self, instruction: str | None = None) -> Task:
        """The same task, with prompts that begin with an instruction.

        Args:
            instruction: used instead of the task's own.

        Raises:
            InvalidArgument: there is no instruction.
        """
        text = self.instruction if instruction is None else instruction
        if not text.strip():
            raise InvalidArgument(
                f"The task {self.name!r} has no instruction.",
                got="''",
                allowed="a sentence",
                do='task.instructed("Write the opposite.\\n\\n")',
            )
        return self.replace(template=replace(self.template, prefix=text + self.template.prefix), instruction=text)

    def rename(self, name: str) -> Task:
        """The same task under another name."""
        return self.replace(name=name)

    def reversed(self, name: str, description: str = "") -> Task:
        """The inverse task, from answer to input; an answer that several inputs share is left out."""
        counts: dict[str, int] = {}
        for pair in self.items:
            counts[pair.output] = counts.get(pair.output, 0) + 1
        back = [Pair(pair.output, pair.input) for pair in self.items if counts[pair.output] == 1]
        return self.replace(name=name, pairs=back, description=description)

    def restricted(self, inputs: Iterable[str]) -> Task:
        """The task over some of its inputs, split into train, dev and test again."""
        wanted = set(inputs)
        return self.replace(pairs=[pair for pair in self.items if pair.input in wanted], twins=self.twins)

    __getattr__ = renamed_attributes(but="task.replace(...)")

    def replace(self, **changes: Any) -> Task:
        """The same task with other fields (`pairs=` for the pairs; their near-duplicates are then looked for again)."""
        fields = dict(
            name=self.name,
            pairs=self.items,
            template=self.template,
            description=self.description,
            source=self.source,
            seed=self.seed,
            instruction=self.instruction,
            null_rule=self.null_rule,
            twins=None if "pairs" in changes else self.twins,
        )
        return Task(**{**fields, **changes})

    def __repr__(self) -> str:
        shown = ", ".join(f"{pair.input!r} -> {pair.output!r}" for pair in self.items[:2])
        more = ", ..." if len(self) > 2 else ""
        sizes = ", ".join(f"{which} {len(self.split(which))}" for which in SPLITS)
        count = "1 pair" if len(self) == 1 else f"{len(self)} pairs"
        return f"Task({self.name!r}, {count}: {shown}{more}; {sizes})"


def split_alike(members: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, with what is a near-duplicate in one of them kept together in all, so that all are split alike."""
    groups = together(members)
    wanted = set(map(frozenset, groups))
    return tuple(one if set(map(frozenset, one.together)) == wanted else one.replace(twins=groups) for one in members)


def together(members: Sequence[Task]) -> Groups:
    """The groups of inputs that lie in one split under any of the tasks."""
    inputs = dict.fromkeys(pair.input for one in members for pair in one)
    return merged(inputs, [group for one in members for group in one.together])


def _unique(name: str, pairs: Iterable[Pair | Sequence[str]]) -> tuple[Pair, ...]:
    by_input: dict[str, Pair] = {}  # by the text as Unicode compares it: é may be one character or two
    for pair in pairs:
        if not isinstance(pair, Pair):
            if len(pair) != 2:
                raise WrongKind(
                    f"The task {name!r} has something that is no pair.", got=repr(pair), allowed="(input, answer)"
                )
            pair = Pair(*pair)
        first = by_input.setdefault(normalize("NFC", pair.input), pair)
        if normalize("NFC", first.output) != normalize("NFC", pair.output):
            raise InvalidArgument(
                f"The task {name!r} gives one input two answers.",
                got=f"{pair.input!r} -> {first.output!r} and {pair.output!r}",
                allowed="one answer for each input",
                do="keep one of the two pairs",
            )
    return tuple(by_input.values())
