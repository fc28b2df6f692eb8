"""Whether the engine "rows" is exact on a model: tried once per model, and why not, in words.

A model whose blocks cannot be run one by one, or whose attention masks more than the mask that it is given, runs whole
passes instead of giving wrong numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.intervention import Add, Intervention, Zero
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.stepping import disagreement, own_mask, trial_batch
from tv_lens.progress import progress
from tv_lens.rows import hook_passes, planning
from tv_lens.rows.edits import PlacedEdit, Row
from tv_lens.site import Site

WHOLE_PASSES = ("embed", "pattern", "scores")


def why_not(model: HookedModel, rows: Sequence[Row]) -> str | None:
    """Why the engine "rows" does not apply, in words; None where it does."""
    whole = {edit.intervention.site.component for row in rows for edit in row.edits} & set(WHOLE_PASSES)
    if whole:
        return f"edits of {', '.join(sorted(whole))} need the whole pass"
    if attached := model.registry.attached_here:
        return f"{attached[0].who} is attached to the model"
    if foreign := model.facts.mark.hooks:
        return f"hooks were added to the model by hand ({', '.join(name for name, _ in foreign[:3])})"
    return model.facts.find('the engine "rows" is exact', lambda: _disagreement(model))


def _disagreement(model: HookedModel) -> str | None:
    """None if rows and whole passes agree on this model; else how they differ.

    A few rows of a short random prompt are tried. In every layer some rows whose attention is not edited stand beside
    others.
    """
    if masked := own_mask(model):
        return masked
    if model.shape.n_ctx < 9:
        return "the context is too short to try rows in"
    base, rows = trial_batch(model, 1, 9), _trial_rows(model)
    whole = {"logits": _logits(hook_passes.run, model, base, rows)}
    return disagreement(model, lambda: {"logits": _logits(planning.run, model, base, rows)}, whole)


def _trial_rows(model: HookedModel) -> list[Row]:
    """Rows that enter in the first, a middle and the last layer, at the last token and before it."""
    middle, last = model.n_layers // 2, model.n_layers - 1
    ones = torch.ones(model.shape.d_model, dtype=torch.float32, device="cpu")
    edits: list[tuple[Intervention, int]] = [
        (_zero(model, "attn_out", middle), 8),
        (_zero(model, "mlp_out", last), 8),
        (_zero(model, "attn_out", 0), 8),
        *((Add(Site("resid_pre", 0), ones, 0.1 * i), 8) for i in range(1, 5)),
        (_zero(model, "attn_out", middle), 5),
        (Add(Site("resid_pre", middle), ones), 3),
    ]
    return [Row(0), *(Row(0, (PlacedEdit(intervention, (position,)),)) for intervention, position in edits)]


def _zero(model: HookedModel, component: str, layer: int) -> Intervention:
    """A component at zero, or, where the architecture has no such component to write, the stream into the layer."""
    sites = (Site(name, layer) for name in (component, "z", "mlp_out", "resid_pre"))
    return Zero(next((site for site in sites if model.registry.support(site).write), Site("resid_pre", layer)))


def _logits(
    run: Callable[..., object], model: HookedModel, base: TokenBatch, rows: Sequence[Row]
) -> Float[Tensor, "row d_vocab"]:
    """All logits of every row, by one of the two engines."""
    by_row: dict[int, Tensor] = {}

    def readout(logits: Tensor, index: Tensor) -> Tensor:
        by_row.update(zip(index.tolist(), logits.float().cpu()))
        return torch.zeros(len(index), dtype=torch.float32, device="cpu")

    with progress("rows: a trial", len(rows), "rows", False) as bar:
        values = torch.zeros(len(rows), dtype=torch.float32, device="cpu")
        run(model, base, rows, readout, values, model.memory_budget, "rows: a trial", bar)
    return torch.stack([by_row[i] for i in range(len(rows))])
