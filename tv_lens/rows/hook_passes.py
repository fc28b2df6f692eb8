"""The engine "passes": every row is a whole forward pass of its prompt through plain hooks. The oracle of "rows"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.capture import bytes_per_prompt, prompts_per_batch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import in_batches, prompts_at_once
from tv_lens.progress import Bar
from tv_lens.rows.edits import Readout, Row, batch_entries, columns_of, index_of, read_out


def run(
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    readout: Readout,
    values: Float[Tensor, "row"],
    budget: int,
    who: str,
    bar: Bar,
) -> dict[str, int]:
    """Fills `values` by passes over prompts of similar length; returns their number and estimated peak."""
    passes, peak = 0, 0
    for chunk in _chunks(model, base, rows, budget):
        width = int(base.lengths[[rows[i].prompt for i in chunk]].max())

        def work(part: slice) -> None:
            whole_pass(model, base, rows, chunk[part], readout, values, who)

        for part, _ in in_batches(model, len(chunk), len(chunk), width, work, who=who):
            size = part.stop - part.start
            passes, peak = passes + 1, max(peak, size * bytes_per_row(model, width))
            bar.advance(size)
    return {"passes": passes, "estimated_peak_bytes": peak}


def whole_pass(
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    chunk: Sequence[int],
    readout: Readout,
    values: Float[Tensor, "row"],
    who: str,
) -> None:
    """Fills the values of the rows whose numbers `chunk` holds by one pass over their prompts."""
    index = index_of(chunk)
    batch = base.select([rows[i].prompt for i in chunk])
    columns = columns_of(readout, index) if model.registry.can_narrow and model.registry.can_gather else None
    narrow = None if columns is None else columns[:, None]
    edits = batch_entries(rows[i] for i in chunk)
    logits, _ = model.forward(batch, edits, logits_at=batch.last[:, None], logit_columns=narrow, who=who)
    logits = logits[:, 0]
    if columns is None and (wanted := columns_of(readout, index)) is not None:
        logits = logits.gather(1, wanted.to(logits.device))
    values[index] = read_out(readout, logits, index, rows)


def bytes_per_row(model: HookedModel, width: int) -> int:
    """What one row takes in a pass of its own."""
    return bytes_per_prompt(model.shape, width, 1, model.dtype.itemsize)


def _chunks(model: HookedModel, base: TokenBatch, rows: Sequence[Row], budget: int) -> Iterator[list[int]]:
    """Rows of similar length in batches that fit the budget: the longest decides, since the others are padded to it."""
    lengths = base.lengths.tolist()
    longest = max(lengths[row.prompt] for row in rows)
    prompts_per_batch(
        budget, bytes_per_row(model, longest), f"{longest} tokens"
    )  # a budget too small for the last batch is refused now
    chunk: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: lengths[rows[i].prompt]):
        width = lengths[rows[i].prompt]
        fits = prompts_per_batch(budget, bytes_per_row(model, width), f"{width} tokens")
        fits = min(fits, prompts_at_once(model, width))
        if len(chunk) >= fits:
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk
