"""Whether the engine "rows" is exact on a model: tried once per model, and why not, in words.

A model whose blocks cannot be run one by one, or whose attention masks more than the mask that it is given, runs whole
passes instead of giving wrong numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.intervention import Add, Intervention, Zero
from tv_lens.model.hooked_model import HookedModel
from tv_lens.progress import progress
from tv_lens.rows import hook_passes, planning
from tv_lens.rows.edits import PlacedEdit, Row
from tv_lens.site import Site

WHOLE_PASSES = ("embed", "pattern", "scores")
_verdicts: weakref.WeakKeyDictionary[HookedModel, str | None] = weakref.WeakKeyDictionary()


def why_not(model: HookedModel, rows: Sequence[Row]) -> str | None:
    """Why the engine "rows" does not apply, in words; None where it does."""
    whole = {edit.intervention.site.component for row in rows for edit in row.edits} & set(WHOLE_PASSES)
    if whole:
        return f"edits of {', '.join(sorted(whole))} need the whole pass"
    if model.registry.attached:
        return f"{model.registry.attached[0].who} is attached to the model"
    if foreign := model.registry.foreign_hooks():
        return f"hooks were added to the model by hand ({', '.join(foreign[:3])})"
    if model not in _verdicts:
        _verdicts[model] = _disagreement(model)
    return _verdicts[model]


def _disagreement(model: HookedModel) -> str | None:
    """None if rows and whole passes agree on this model; else how they differ.

    A few rows of a short random prompt are tried. In every layer some rows whose attention is not edited stand beside
    others.
    """
    if masked := own_mask(model):
        return masked
    if model.shape.n_ctx < 9:
        return "the context is too short to try rows in"
    ids = torch.randint(3, model.n_ids, (1, 9), generator=torch.Generator().manual_seed(0), device="cpu")
    base, rows = model.tokens(ids), _trial_rows(model)
    whole = _logits(hook_passes.run, model, base, rows)
    try:
        stepped = _logits(planning.run, model, base, rows)
    except Exception as error:  # whatever an unknown architecture raises when its blocks are run one by one
        message = str(error).strip().splitlines() or [""]
        return f"this architecture cannot be stepped block by block ({type(error).__name__}: {message[0][:200]})"
    gap = (stepped - whole).abs().max() / whole.std()
    allowed = 1e-3 if model.dtype == torch.float32 else 0.1
    return None if gap <= allowed else f"rows and whole passes differ by {gap:.1e} of the logits' spread"


def _trial_rows(model: HookedModel) -> list[Row]:
    """Rows that enter in the first, a middle and the last layer, at the last token and before it."""
    middle, last = model.n_layers // 2, model.n_layers - 1
    ones = torch.ones(model.shape.d_model, dtype=torch.float32, device="cpu")
    edits: list[tuple[Intervention, int]] = [
        (Zero(Site("attn_out", middle)), 8),
        (Zero(Site("mlp_out", last)), 8),
        (Zero(Site("attn_out", 0)), 8),
        *((Add(Site("resid_pre", 0), ones, 0.1 * i), 8) for i in range(1, 5)),
        (Zero(Site("attn_out", middle)), 5),
        (Add(Site("resid_pre", middle), ones), 3),
    ]
    return [Row(0), *(Row(0, (PlacedEdit(intervention, (position,)),)) for intervention, position in edits)]


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


def own_mask(model: HookedModel) -> str | None:
    """Which layer's attention hides more than the future by a buffer of its own; None if none does.

    Rows are kept from seeing each other by the mask that a block is given. A window that is cut out of a buffer counts
    the rows beside one another as if they were later tokens, and makes a difference only where it is shorter than they
    are: no short trial would find it.
    """
    for layer, block in enumerate(model.tl.blocks):
        for name, buffer in block.named_buffers():
            square = buffer.ndim >= 2 and buffer.shape[-1] == buffer.shape[-2] > 1 and buffer.dtype == torch.bool
            if square and not torch.equal(buffer, torch.ones_like(buffer).tril()):
                return f"layer {layer} of this architecture masks by a buffer of its own ({name.split('.')[-1]})"
    return None
