"""What an accuracy on a task is worth: how a tokenizer splits the answers, and what guessing would score."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tv_lens.model.text_ids import text_ids
from tv_lens.tasks.drawing import SPLITS
from tv_lens.tasks.split_pairs import SplitPairs
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenizing import continuations, tokenizer_of
from tv_lens.tasks.twins import near_duplicates


@dataclass(frozen=True)
class TaskAudit:
    """Numbers to print beside every accuracy on a task; rates are shares of its pairs.

    Args:
        task: the task's name.
        template: the template's name.
        n: number of pairs.
        single_token_share: answers of one token; of the others, the first token is not the whole answer.
        ambiguous_first_token_share: answers whose first token also begins a different answer of the task.
        majority_rate: what always guessing the commonest first token scores by first token.
        majority_answer: the commonest answer among those that begin with that token.
        copy_rate: what repeating the input scores by first token.
        exact_majority_rate: what always giving the commonest whole answer scores by exact match.
        exact_copy_rate: what repeating the input scores by exact match.
        near_duplicates: inputs that have a near-duplicate among the others, by kind (see `tv_lens.tasks.twins`).
        parted_share: pairs with a near-duplicate in another split: where there are so many that they cannot be kept
            in one, or where the task says itself what lies together.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> switch_tasks()[0].audit(task_switch(n=2).model)
        TaskAudit('switch-a', 10 pairs, template 'switch')
          single-token answers    100.0%
          ambiguous first tokens    0.0%
          majority guess           10.0%  ('a4'; exact 10.0%)
          copied input              0.0%  (exact 0.0%)
    """

    task: str
    template: str
    n: int
    single_token_share: float
    ambiguous_first_token_share: float
    majority_rate: float
    majority_answer: str
    copy_rate: float
    exact_majority_rate: float
    exact_copy_rate: float
    near_duplicates: dict[str, int] = field(default_factory=dict)
    parted_share: float = 0.0

    @property
    def cautions(self) -> list[str]:
        """Sentences that a reader of accuracies must know; empty if there are none."""
        cautions = []
        if self.majority_rate >= 0.2:
            cautions.append(f"always guessing {self.majority_answer!r} scores {self.majority_rate:.2f} by first token")
        if self.copy_rate >= 0.1:
            cautions.append(f"repeating the input scores {self.copy_rate:.2f} by first token")
        if self.ambiguous_first_token_share >= 0.2:
            cautions.append(
                f"{self.ambiguous_first_token_share:.0%} of answers share their first token with another "
                "answer: score whole answers"
            )
        if self.parted_share > 0:
            cautions.append(
                f"{self.parted_share:.0%} of pairs have a near-duplicate in another split ({self._kinds()}): a test "
                "answer may stand in train"
            )
        return cautions

    def _kinds(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.near_duplicates.items())

    def to_dict(self) -> dict[str, Any]:
        """The numbers as a plain dictionary."""
        return asdict(self)

    def __repr__(self) -> str:
        return (
            f"TaskAudit({self.task!r}, {self.n} pairs, template {self.template!r})\n"
            f"  single-token answers    {self.single_token_share:6.1%}\n"
            f"  ambiguous first tokens  {self.ambiguous_first_token_share:6.1%}\n"
            f"  majority guess          {self.majority_rate:6.1%}  ({self.majority_answer!r}; "
            f"exact {self.exact_majority_rate:.1%})\n"
            f"  copied input            {self.copy_rate:6.1%}  (exact {self.exact_copy_rate:.1%})"
            + (f"\n  parted near-duplicates  {self.parted_share:6.1%}  ({self._kinds()})" if self._kinds() else "")
        )


def audit(task: SplitPairs, model_or_tokenizer: Any, template: Template) -> TaskAudit:
    """How a tokenizer splits a task's answers, and what guessing would score; see `Task.audit`."""
    tokenizer = tokenizer_of(model_or_tokenizer)
    texts = [template.render((), pair.input)[0] for pair in task]
    ids = [one.plain for one in text_ids(tokenizer, texts, "never")]
    answers = continuations(tokenizer, texts, ids, [template.answer_text(pair.output) for pair in task])
    copies = continuations(tokenizer, texts, ids, [template.answer_text(pair.input) for pair in task])
    firsts = Counter(answer[0] for answer in answers)
    outputs = Counter(pair.output for pair in task)
    begun: dict[int, set[str]] = {}
    for pair, answer in zip(task, answers):
        begun.setdefault(answer[0], set()).add(pair.output)
    # Ties go to the answer that comes first in the task, so that the audit is the same everywhere.
    majority = max(firsts, key=firsts.__getitem__)
    candidates = [label for label in task.labels if label in begun[majority]]
    n = len(task)
    counts, parted = _near_duplicates(task)
    return TaskAudit(
        task=task.name,
        template=template.name,
        n=n,
        single_token_share=sum(len(answer) == 1 for answer in answers) / n,
        ambiguous_first_token_share=sum(len(begun[answer[0]]) > 1 for answer in answers) / n,
        majority_rate=firsts[majority] / n,
        majority_answer=max(candidates, key=outputs.__getitem__),
        copy_rate=sum(copy[0] == answer[0] for copy, answer in zip(copies, answers)) / n,
        exact_majority_rate=max(outputs.values()) / n,
        exact_copy_rate=sum(pair.input == pair.output for pair in task) / n,
        near_duplicates=counts,
        parted_share=parted / n,
    )


def _near_duplicates(task: SplitPairs) -> tuple[dict[str, int], int]:
    """How many inputs have a near-duplicate, by kind, and how many have one in another split."""
    found = near_duplicates(task.items)
    split_of = {pair.input: which for which in SPLITS for pair in task.split(which)}
    parted = {
        text
        for groups in found.values()
        for group in groups
        if len({split_of[other] for other in group}) > 1
        for text in group
    }
    counts = {kind: len({text for group in groups for text in group}) for kind, groups in found.items() if groups}
    return counts, len(parted)
