"""The two runs of a contrast without a patch: which is patched, their last logits, and the metric of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.metrics import Answers, Metric, checked
from tv_lens.model.hooked_model import HookedModel
from tv_lens.rows.engine import Row, run_rows
from tv_lens.tasks.tokenized import TokenizedPairs

DIRECTIONS = ("denoising", "noising")


def base_and_source(model: HookedModel, tokens: TokenizedPairs, direction: str) -> tuple[TokenBatch, TokenBatch]:
    """The prompts that are patched, and those whose activations are written into them."""
    base, source = tokens.corrupted.tokens, tokens.clean.tokens
    if direction == "noising":
        base, source = source, base
    return model.tokens(base), model.tokens(source)


@dataclass(frozen=True, eq=False)
class PlainRuns:
    """The runs without a patch: the metric of each, and the answers with the clean run's logits as their reference."""

    answers: Answers
    clean: Float[Tensor, "example"]
    corrupted: Float[Tensor, "example"]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        tokens: TokenizedPairs,
        metric: Metric,
        budget: int | None,
        who: str,
        engine: str = "auto",
    ) -> PlainRuns:
        """Both runs, by the engine that runs the patches: "passes" is the reference, so nothing of it may be rows."""
        logits = last_logits(model, tokens.clean.tokens, budget, f"{who} clean run", engine)
        answers = replace(tokens.answers, reference=logits)
        clean = checked(metric, logits, answers, "the clean run").cpu()
        logits = last_logits(model, tokens.corrupted.tokens, budget, f"{who} corrupted run", engine)
        return cls(answers, clean, checked(metric, logits, answers, "the corrupted run").cpu())


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
