"""Many interventions in one pass: each row is one prompt under one set of edits.

A caller lists its rows and a readout and gets one number per row. Two engines give the same numbers: "rows" recomputes
only what an edit can change (`rows/planning.py`, `rows/walk.py`); "passes" runs every row as a full forward pass of its
prompt (`rows/hook_passes.py`), and is the oracle. Which one ran, and why, is in the result's provenance.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.intervention import Zero
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.rows import hook_passes, planning, trial
from tv_lens.rows.edits import PlacedEdit, Readout, Row, check_rows
from tv_lens.site import Site

__all__ = ["ENGINES", "PlacedEdit", "Readout", "Row", "RowValues", "run_rows"]

ENGINES = ("auto", "rows", "passes")


@dataclass(frozen=True, eq=False)
class RowValues:
    """One number per row, and how they were computed: the engine, its passes or walks, seconds and bytes."""

    values: Float[Tensor, "row"]
    provenance: dict[str, object] = field(default_factory=dict)


@renamed_keywords(plan="engine=", show_progress="progress=")
@verb
def run_rows(
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    readout: Readout,
    *,
    engine: str = "auto",
    memory_budget: int | None = None,
    who: str = "rows",
    progress: bool = True,
    bar: Bar | None = None,
) -> RowValues:
    """The readout of every row's logits after its prompt's last token.

    Args:
        model: any hooked model.
        base: the prompts that the rows edit.
        rows: what to run.
        readout: takes logits and the indices of their rows, gives one number each.
        engine: "rows" recomputes only what the edits can change, "passes" runs every row whole, "auto" takes the first
            where it applies and says in the provenance why where it does not.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        who: the verb that calls, for the progress bar and the registry.
        progress: Show a progress bar (only on a terminal or in a notebook).
        bar: a bar that is shown already, to advance by one step per row instead.

    Raises:
        NonFiniteMetric: a row's value is NaN or infinite; names the row, its prompt and its edits.
        InvalidArgument: engine="rows" was demanded and does not apply.
        BudgetTooSmall: the budget does not hold one row.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> from tv_lens.intervention import Zero
        >>> known = induction(n=2)
        >>> prompts = known.prompts.clean.tokenize(known.model)
        >>> last = int(prompts.tokens.lengths[0]) - 1
        >>> rows = [Row(0), Row(0, (PlacedEdit(Zero("z[2].h1"), (last,)),))]  # prompt 0 as it is, and without the head
        >>> found = run_rows(known.model, prompts.tokens, rows, lambda logits, index: logits.amax(1), progress=False)
        >>> found.values.shape, bool(found.values[0] > found.values[1])
        (torch.Size([2]), True)
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if not rows:
        raise EmptySelection("There is no row to run.")
    base = model.tokens(base)
    check_rows(rows, base)
    why_not = "asked for" if engine == "passes" else trial.why_not(model, rows)
    if engine == "rows" and why_not:
        raise InvalidArgument("Rows do not apply here.", got=why_not, do='use engine="auto" or engine="passes".')
    budget, started = memory_budget or model.memory_budget, time.perf_counter()
    values = torch.full((len(rows),), float("nan"), dtype=torch.float32, device="cpu")
    with progress_bar(who, len(rows), "rows", progress and bar is None) as own:
        run = hook_passes.run if why_not else planning.run
        counts = run(model, base, rows, readout, values, budget, who, bar or own)
    chosen = {"engine": "passes", "engine_why": why_not} if why_not else {"engine": "rows"}
    return RowValues(
        values, {**chosen, **counts, "rows": len(rows), "seconds": round(time.perf_counter() - started, 3)}
    )


def why_whole_passes(model: HookedModel, sites: Sequence[Site], engine: str = "auto") -> str | None:
    """Why rows that edit these sites would run as whole passes; None where the engine "rows" would run them."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    kinds = {site.component: site for site in sites}
    rows = [Row(0, tuple(PlacedEdit(Zero(site.at(None)), (0,)) for site in kinds.values()))]
    return "asked for" if engine == "passes" else trial.why_not(model, rows)
