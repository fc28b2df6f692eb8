"""The two runs of a contrast without a patch: which is patched, their last logits, and the metric of each.

Neither is a pass of its own: the source run's logits come from the pass in which its activations are read, and the base
run is one more row among those that are patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.metrics import Answers, Metric, checked, info_of
from tv_lens.model.capture import Capture, captured
from tv_lens.model.hooked_model import HookedModel
from tv_lens.rows.engine import Row, RowValues, run_rows
from tv_lens.site import Site
from tv_lens.tasks.tokenized import TokenizedPairs

DIRECTIONS = ("denoising", "noising")


@dataclass(frozen=True, eq=False)
class Measured:
    """The metric of every patched row, and of the two runs without a patch."""

    values: Float[Tensor, "row"]
    clean: Float[Tensor, "example"]
    corrupted: Float[Tensor, "example"]
    provenance: dict[str, object]


@dataclass(frozen=True, eq=False)
class Contrast:
    """The run that is patched, the run whose activations are written into it, and what is measured of both.

    Args:
        model: the model that runs.
        base: the prompts that are patched.
        source: the prompts whose activations are written into them.
        answers: of each pair of prompts.
        metric: takes logits and answers, gives one number per example.
        direction: "denoising" patches the corrupted run, "noising" the clean one.
        engine: how the base run is run where the metric compares with it: "passes" is the reference, so nothing of it
            may be rows.
        budget: bytes one batch may take beside the weights.
    """

    model: HookedModel
    base: TokenBatch
    source: TokenBatch
    answers: Answers
    metric: Metric
    direction: str
    engine: str
    budget: int

    @classmethod
    def of(
        cls,
        model: HookedModel,
        tokens: TokenizedPairs,
        metric: Metric,
        direction: str,
        engine: str,
        memory_budget: int | None,
    ) -> Contrast:
        """The contrast of some pairs of prompts."""
        base, source = tokens.corrupted.tokens, tokens.clean.tokens
        if direction == "noising":
            base, source = source, base
        budget = memory_budget or model.memory_budget
        return cls(model, model.tokens(base), model.tokens(source), tokens.answers, metric, direction, engine, budget)

    def source_run(
        self, examples: Sequence[int], sites: Sequence[Site]
    ) -> tuple[Capture, Answers, Float[Tensor, "example"]]:
        """Of some examples: the source run's activations, the answers, and the metric of the source run."""
        capture = captured(self.model, self.source.select(examples), sites, self.budget, last_logits=True)
        answers, logits = self.answers.select(examples), cast(Tensor, capture.last_logits)
        name = "clean" if self.direction == "denoising" else "corrupted"
        if info_of(self.metric).needs_reference:
            answers = replace(answers, reference=logits if name == "clean" else self._base_logits(examples))
        return capture, answers, checked(self.metric, logits, answers, f"the {name} run").cpu()

    def base_run(self, examples: Sequence[int], sites: Sequence[Site]) -> Capture:
        """The base run's activations of some examples."""
        return captured(self.model, self.base.select(examples), sites, self.budget)

    def _base_logits(self, examples: Sequence[int]) -> Float[Tensor, "example d_vocab"]:
        return last_logits(self.model, self.base.select(examples), self.budget, "the clean run", self.engine)

    def measured(self, rows: RowValues, of_source: Float[Tensor, "row"]) -> Measured:
        """The result of all rows, the last of which are the base run of every example.

        Args:
            rows: their values.
            of_source: the metric of each row's source run.
        """
        n = len(self.base)
        plain = (of_source[-n:], rows.values[-n:])
        clean, corrupted = plain if self.direction == "denoising" else plain[::-1]
        return Measured(rows.values[:-n], clean, corrupted, rows.provenance)


def last_logits(
    model: HookedModel, tokens: TokenBatch, budget: int | None = None, who: str = "plain runs", engine: str = "auto"
) -> Float[Tensor, "batch d_vocab"]:
    """Every prompt's logits after its last token, run without any edit; on the host."""
    tokens, by_prompt = model.tokens(tokens), [torch.empty(0, dtype=torch.float32, device="cpu")] * len(tokens)

    def keep(logits: Tensor, index: Tensor) -> Tensor:
        for i, row in zip(index.tolist(), logits.cpu()):
            by_prompt[i] = row
        return torch.zeros(len(index), dtype=torch.float32, device="cpu")

    rows = [Row(i) for i in range(len(tokens))]
    engine = "auto" if engine == "rows" else engine  # a plain run has no edit that rows would have to apply to
    run_rows(model, tokens, rows, keep, engine=engine, memory_budget=budget, who=who, progress=False)
    return torch.stack(by_prompt)
