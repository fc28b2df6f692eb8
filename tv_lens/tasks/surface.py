"""By how much a family of tasks gives itself away: how often a classifier names the task without reading any rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.stats import binomtest

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenized import TokenizedPrompts
from tv_lens.tasks.words import TaskLike, as_task
from tv_lens.tasks.words import null as null_of

TOKENS, CHARACTERS, LENGTHS, PLACES = "tokens", "characters", "lengths", "places in the prompt"
PLACE_IN_INPUT = "place in the input"
FEATURES = (TOKENS, CHARACTERS, LENGTHS, PLACES, PLACE_IN_INPUT)
_LEAST = 4  # prompts per class: two to learn from, two to test
_NO_MARKS = str.maketrans("", "", ',.;:!?"()[]')


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceAudit:
    """How often a classifier names the task of a prompt from features of its shown answers.

    Args:
        tasks: the classes, the Null task last where it is one.
        n: prompts per class.
        table: one row per `feature` and `shots`: `accuracy`, its 95 % limits `low` and `high` (Wilson), and `p`, how
            often guessing would be right as often or oftener.
    """

    tasks: tuple[str, ...]
    n: int
    table: pd.DataFrame

    @property
    def chance(self) -> float:
        """One over the number of classes."""
        return 1 / len(self.tasks)

    @property
    def cautions(self) -> list[str]:
        """What gives the tasks away: each feature that beats guessing, at the shots where it does most (Holm, 5 %)."""
        rejected = self.table[_holm(self.table["p"].to_numpy()) <= 0.05]
        best = rejected.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates("feature")
        said = {
            TOKENS: "the tokens of the shown answers",
            CHARACTERS: "the characters of the shown answers",
            LENGTHS: "the lengths of the shown answers",
            PLACES: "where the shown answers stand in the prompt",
            PLACE_IN_INPUT: "where the shown answers stand in their inputs (the rule itself if places are the task)",
        }
        return [
            f"{said[row.feature]}: the task is named in {row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}] of prompts "
            f"of {row.shots} shot{'s' * (row.shots != 1)}, where guessing names it in {self.chance:.0%}"
            for row in best.itertuples()
        ]

    def __repr__(self) -> str:
        wide = self.table.pivot(index="feature", columns="shots", values="accuracy").loc[list(FEATURES)]
        lines = [f"SurfaceAudit({', '.join(self.tasks)}; {self.n} prompts each, chance {self.chance:.2f})"]
        lines.append(f"  {'shots':<22}" + "".join(f"{shots:>6}" for shots in wide))
        lines += [f"  {name:<22}" + "".join(f"{value:6.2f}" for value in row) for name, row in wide.iterrows()]
        return "\n".join(lines)


@checks_kinds
def surface_audit(
    tasks: Sequence[TaskLike],
    model_or_tokenizer: Any,
    *,
    shots: Sequence[int] = (1, 4, 10),
    n: int = 200,
    null: bool | Task = True,
    split: str = "train",
    template: Template | None = None,
    seed: int = 0,
) -> SurfaceAudit:
    """What the surface of the demonstrations tells of the task: naive Bayes on counts, on prompts that it has not seen.

    The features are counted over the shown answers of a prompt: their tokens; their characters; their lengths in
    characters and in tokens; where their first tokens stand in the prompt; and where each answer stands in its own
    input, in words from the beginning and from the end. Where all are near chance, only a rule distinguishes the
    tasks.

    Args:
        tasks: a family (`tv.tasks.family`) or several tasks, their names or files.
        model_or_tokenizer: what cuts the answers into tokens.
        shots: demonstrations per prompt, 1 or more.
        n: prompts per task, each drawn on its own; the first half is learnt from, the second half tested.
        null: whether the Null task is one of the classes; or a Null task.
        split: the split that queries come from.
        template: used instead of the tasks' own.
        seed: the draws of prompts.

    Raises:
        InvalidArgument: there are fewer than two classes, no demonstrations, or fewer than four prompts.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> found = surface_audit(switch_tasks(), task_switch(n=2).model, shots=(1, 2), n=8, null=False)
        >>> found.chance, len(found.table)
        (0.5, 10)
    """
    classes = [as_task(one) for one in tasks]
    if null is not False:
        classes.append(null_of(classes, seed) if null is True else null)
    if len(classes) < 2 or min(shots, default=0) < 1 or n < _LEAST:
        raise InvalidArgument(
            "A classifier needs two tasks or more, shown answers, and prompts to learn from.",
            got=f"{len(classes)} tasks, shots={tuple(shots)}, n={n}",
            allowed=f"2 tasks or more, shots of 1 or more, n of {_LEAST} or more",
        )
    rows = []
    for count in shots:
        drawn = [_drawn(one, count, n, split, template, seed).tokenize(model_or_tokenizer) for one in classes]
        for feature, items in _features(drawn).items():
            hits, tested = _hits(items, len(classes))
            p = binomtest(hits, tested, 1 / len(classes), alternative="greater").pvalue
            limits = binomtest(hits, tested).proportion_ci(method="wilson")
            rows.append((feature, count, hits / tested, limits.low, limits.high, p))
    table = pd.DataFrame(rows, columns=["feature", "shots", "accuracy", "low", "high", "p"])
    return SurfaceAudit(tuple(one.name for one in classes), n, table)


def _drawn(one: Task, shots: int, n: int, split: str, template: Template | None, seed: int) -> Prompts:
    """Prompts that are drawn each on its own, as those of `tv.decodability` are."""
    seeds = [rng_of("points", seed, one.name, i).getrandbits(31) for i in range(n)]
    single = [one.prompts(shots, 1, seed=own, split=split, template=template) for own in seeds]
    return single[0].with_items([prompts[0] for prompts in single])


def _features(drawn: Sequence[TokenizedPrompts]) -> dict[str, list[list[object]]]:
    """The items of each prompt that are counted, class after class, by feature."""
    features: dict[str, list[list[object]]] = {feature: [] for feature in FEATURES}
    for tokenized in drawn:
        for prompt, row, spans in zip(tokenized.prompts, tokenized.tokens.rows(), tokenized.token_spans):
            answers = [span for span in spans if span.kind == "y"]
            outputs = [pair.output for pair in prompt.demonstrations]
            features[TOKENS].append([token for span in answers for token in row[span.start : span.end]])
            features[CHARACTERS].append(list("".join(outputs)))
            sizes = [("tokens", span.end - span.start) for span in answers]
            features[LENGTHS].append([*sizes, *(("characters", len(output)) for output in outputs)])
            features[PLACES].append([span.start for span in answers])
            features[PLACE_IN_INPUT].append(_in_input(prompt))
    return features


def _in_input(prompt: Prompt) -> list[object]:
    """Each answer's first place among the words of its input, from the beginning, from the end, and both."""
    items: list[object] = []
    for pair in prompt.demonstrations:
        words, answer = pair.input.translate(_NO_MARKS).split(), pair.output.translate(_NO_MARKS).split()
        starts = (i for i in range(len(words)) if words[i : i + len(answer)] == answer)
        start = next(starts, None)
        if start is None:
            items.append("elsewhere")
        else:
            end = len(words) - start
            items += [("from the beginning", start), ("from the end", end), ("both", start, end)]
    return items


def _hits(items: Sequence[Sequence[object]], n_classes: int) -> tuple[int, int]:
    """How many prompts of the second half of each class naive Bayes names rightly after the first, and of how many.

    Given what was learnt, the tested prompts are independent, so that guessing is binomial. Under cross-validation it
    is not: prompts with the same answers are learnt from and tested in turn, and hits vary twice as far.
    """
    from sklearn.naive_bayes import MultinomialNB

    columns: dict[object, int] = {}
    cells = [(i, columns.setdefault(item, len(columns))) for i, row in enumerate(items) for item in row]
    at = np.array(cells, dtype=int).reshape(-1, 2).T
    counts = csr_array((np.ones(at.shape[1]), (at[0], at[1])), shape=(len(items), max(1, len(columns))))
    n = len(items) // n_classes
    labels, learnt = np.arange(n_classes).repeat(n), np.tile(np.arange(n) < n // 2, n_classes)
    named = MultinomialNB().fit(counts[learnt], labels[learnt]).predict(counts[~learnt])
    return int((named == labels[~learnt]).sum()), int((~learnt).sum())


def _holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number (Holm 1979)."""
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return adjusted
