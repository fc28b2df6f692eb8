"""What each node of a model, and each demonstration of a prompt, does for the answer: exact effects.

An effect is a difference of two runs: the metric with one thing changed, minus the metric of the run in which it was
changed. Effects of heads and MLPs come from `patch`; those of paths between heads are in `patching/paths.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.errors import EmptySelection, SiteNotWritable, unknown
from tv_lens.metrics import Answers, Metric, MetricLike, Readout, as_metric, checked, info_of, logit_diff
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.masking import Hiding, supports_masking
from tv_lens.model.verb import verb
from tv_lens.patching.activations import patch
from tv_lens.patching.plain_runs import last_logits
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.edits import index_of
from tv_lens.rows.engine import Row
from tv_lens.rows.sharding import cut_rows, run_parts
from tv_lens.site import Sites
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.templates import Pair
from tv_lens.tasks.tokenized import TokenizedPrompts

WAYS = ("removing", "hiding")
TOKENS_AT_ONCE = 4096  # of prompts with a hidden demonstration; they are a shard, too


@renamed_keywords(run="folder=", plan="engine=")
@verb
def node_effects(
    model: HookedModel,
    pairs: PromptPairs,
    *,
    pos: int | None = -1,
    metric: MetricLike = logit_diff,
    direction: str = "denoising",
    engine: str = "auto",
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """What every attention head and every MLP does for the metric, one at a time: a Sweep `example x layer x node`.

    Args:
        model: the model to patch.
        pairs: clean and corrupted prompts.
        pos: where a node's output is exchanged: -1 is the last token (needs no alignment), None every token.
        metric: takes logits and answers, gives one number per example; or the name of a metric of `tv.metrics`.
        direction: "denoising" writes a node's clean output into the corrupted run, "noising" its corrupted output into
            the clean run.
        engine: "auto", "rows" or "passes" (see `run_rows`); the values are the same.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        folder: a folder that keeps finished shards, so that a killed call can continue; the values are the same.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        The nodes are "h0", "h1", ... and "mlp". The run without a change is at 0, so `recovery()` is the share of the
        gap between the runs that one node alone closes.

    Sign:
        The metric's, as a difference from the run that is changed; 0 where the node makes no difference.

    Source:
        Vig et al. 2020 (arXiv 2004.12265), indirect effects of single components.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=8)  # a tiny model whose circuit is known
        >>> effects = tv.node_effects(known.model, known.prompts, progress=False)
        >>> effects.values.dims, effects.best()
        (('example', 'layer', 'node'), {'layer': 2, 'node': 'h1'})
    """

    nodes = {f"h{head}": Sites(("z",), heads=(head,), pos=pos) for head in range(model.shape.n_heads)}
    sweep = patch(
        model,
        pairs,
        {**nodes, "mlp": Sites(("mlp_out",), pos=pos)},
        over=("layer", "set"),
        metric=metric,
        direction=direction,
        engine=engine,
        memory_budget=memory_budget,
        folder=folder,
        progress=progress,
    )
    return as_effects(
        replace(
            sweep,
            values=sweep.values.rename(set="node"),
            name=f"{pairs.task}: effect of every head and MLP ({direction})",
        ),
        sweep.corrupted if direction == "denoising" else sweep.clean,
        {"verb": "node_effects", "pos": pos},
    )


def as_effects(sweep: Sweep, base: xr.DataArray, provenance: dict[str, object]) -> Sweep:
    """A sweep and its baselines as differences from the run that was changed."""
    return replace(
        sweep,
        values=(sweep.values - base).transpose(*sweep.values.dims),
        metric=f"effect on {sweep.metric}",
        sign=f"as a difference from the run that is changed; 0: no effect (of the metric itself: {sweep.sign})",
        zero=0.0,
        clean=None if sweep.clean is None else sweep.clean - base,
        corrupted=None if sweep.corrupted is None else sweep.corrupted - base,
        provenance={**sweep.provenance, **provenance},
    )


@renamed_keywords(plan="engine=")
@verb
def demonstration_effects(
    model: HookedModel,
    prompts: Prompts | PromptPairs,
    *,
    by: str = "removing",
    metric: MetricLike = logit_diff,
    engine: str = "auto",
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """What each demonstration of a prompt does for the metric: one left out at a time, `example x demonstration`.

    Args:
        model: the model that answers.
        prompts: prompts that all have the same number of demonstrations; of pairs, the clean ones are taken.
        by: "removing" takes the demonstration out of the text, so that later tokens move up; "hiding" leaves the text
            and keeps every later token from attending to it, so that nothing moves.
        metric: takes logits and answers, gives one number per example; or the name of a metric of `tv.metrics`.
        engine: how the prompts run where `by` is "removing": "auto", "rows" or "passes".
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        folder: a folder that keeps finished shards, so that a killed call can continue; the values are the same.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        Demonstrations count from 0, the first one shown. The clean baseline is the metric of the whole prompt.

    Raises:
        EmptySelection: the prompts show no demonstration.
        SiteNotWritable: `by` is "hiding" and the model's attention ignores a mask that it is given.

    Sign:
        Above 0, the metric is higher with the demonstration than without it.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> task, _ = switch_tasks()
        >>> prompts = task.prompts(shots=2, n=4)
        >>> effects = demonstration_effects(task_switch(n=2).model, prompts, metric="log_prob", progress=False)
        >>> effects.values.dims, effects.values.shape
        (('example', 'demonstration'), (4, 2))
    """
    if by not in WAYS:
        raise unknown("way to leave a demonstration out", by, WAYS)
    metric, prompts = as_metric(metric), prompts.clean if isinstance(prompts, PromptPairs) else prompts
    shots = {len(prompt.demonstrations) for prompt in prompts}
    if len(shots) > 1 or shots == {0}:
        raise EmptySelection(
            "Every prompt must show as many demonstrations, and one at least.",
            got=sorted(shots),
            allowed="task.prompts(shots=5, n=20)",
        )
    question = _Demonstrations(model, prompts.tokenize(model), shots.pop(), metric, engine, memory_budget)
    work = Work.on(model, "demonstration_effects", {**question.config, "by": by}, folder, progress)
    values, about = question.removed(work) if by == "removing" else question.hidden(work)
    full, without = values[:, 0], values[:, 1:]
    info = info_of(metric)
    return Sweep(
        xr.DataArray((full[:, None] - without).numpy(), dims=("example", "demonstration")),
        metric=f"effect on {info.name}",
        units=info.units,
        zero=0.0,
        sign=f"above 0: {info.name} is higher with the demonstration than without it; 0: no effect",
        name=f"{prompts.task}: effect of each demonstration (by {by})",
        provenance={
            "verb": "demonstration_effects",
            "by": by,
            **origin(model),
            "prompts": prompts.recipe,
            "whole_prompt": float(full.mean()),
            **about,
        },
    )


@dataclass(frozen=True, eq=False)
class _Demonstrations:
    """Prompts, each whole and without each one of its demonstrations."""

    model: HookedModel
    whole: TokenizedPrompts
    count: int
    metric: Metric
    engine: str
    memory_budget: int | None

    @property
    def budget(self) -> int:
        return self.memory_budget or self.model.memory_budget

    @property
    def config(self) -> dict[str, object]:
        """What the values depend on, as far as the prompts and the metric go."""
        tokens = {"prompts": self.whole.prompts.recipe, "tokens": self.whole.tokens, "answers": self.whole.answers}
        return {**tokens, "metric": self.metric, "engine": self.engine, "memory_budget": self.budget}

    @cached_property
    def answers(self) -> Answers:
        """The answers, with the whole prompts' logits where the metric compares with them; run when first needed."""
        if not info_of(self.metric).needs_reference:
            return self.whole.answers
        reference = last_logits(self.model, self.whole.tokens, self.budget, engine=self.engine)
        return replace(self.whole.answers, reference=reference)

    def removed(self, work: Work) -> tuple[Float[Tensor, "example one_and_demonstration"], dict[str, object]]:
        """The metric of each whole prompt, and of the same prompt without each one of its demonstrations."""
        prompts, per = self.whole.prompts, self.count + 1
        items = [one for prompt in prompts for one in (prompt, *(_without(prompts, prompt, i) for i in range(per - 1)))]
        base = self.model.tokens(replace(prompts, items=tuple(items)).tokenize(self.model).tokens)
        lengths = base.lengths.tolist()
        result = run_parts(
            work,
            self.model,
            base,
            cut_rows(range(len(base)), [length - 1 for length in lengths], lengths),
            lambda part: ([Row(number) for number in part], Readout(self.metric, self.answers, index_of(part) // per)),
            who="prompts without a demonstration",
            unit="prompts",
            engine=self.engine,
            memory_budget=self.budget,
        )
        return result.values.view(-1, per), result.provenance

    def hidden(self, work: Work) -> tuple[Float[Tensor, "example one_and_demonstration"], dict[str, object]]:
        """The metric of each whole prompt, and of the same prompt with one demonstration that no later token sees."""
        if not supports_masking(self.model):
            raise SiteNotWritable(
                f"The attention of {self.model.architecture} cannot be kept from seeing tokens from outside.",
                got='by="hiding"',
                do='by="removing" takes the demonstration out of the text.',
            )
        base = self.model.tokens(self.whole.tokens)
        cases = [(row, demo) for row in range(len(base)) for demo in (None, *range(self.count))]
        step = max(1, TOKENS_AT_ONCE // base.width)
        parts = [cases[start : start + step] for start in range(0, len(cases), step)]

        def metrics(part: Sequence[tuple[int, int | None]], bar: Bar) -> Piece:
            rows = [row for row, _ in part]
            batch = base.select(rows)
            blocked = torch.stack([_blocked(self.whole, row, demo, batch.width) for row, demo in part])
            logits, _ = self.model.forward(
                batch, logits_at=batch.last[:, None], block_call=Hiding(blocked), who="demonstration_effects"
            )
            return {"values": checked(self.metric, logits[:, 0].cpu(), self.answers.select(rows), "a hidden run").cpu()}

        label, steps = "prompts with a hidden demonstration", list(map(len, parts))
        finished = work.run(metrics, parts, label=label, unit="prompts", steps=steps)
        values = torch.cat([torch.from_numpy(shard["values"]) for shard in finished]).float()
        about = {"engine": "passes", "engine_why": "the mask of every token changes", **finished.provenance}
        return values.view(len(base), self.count + 1), about


def _without(prompts: Prompts, prompt: Prompt, i: int) -> Prompt:
    others = [pair for at, pair in enumerate(prompt.demonstrations) if at != i]
    built = Prompt.build(prompts.template, others, Pair(prompt.input, prompt.output))
    return replace(built, answer=prompt.answer, foil=prompt.foil, spares=prompt.spares)


def _blocked(whole: TokenizedPrompts, row: int, demo: int | None, width: int) -> Bool[Tensor, "query key"]:
    """Which queries may not see which keys: the tokens after a demonstration do not see those of it."""
    blocked = torch.zeros(width, width, dtype=torch.bool, device="cpu")
    spans = [span for span in whole.token_spans[row] if demo is not None and span.demo == demo]
    if spans:
        first, end = min(span.start for span in spans), max(span.end for span in spans)
        blocked[end:, first:end] = True
    return blocked
