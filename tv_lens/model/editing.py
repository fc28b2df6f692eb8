"""Where in a tensor an intervention acts, and the new tensor that results: no hooks here, only indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import DuplicateSite, InvalidArgument, MisalignedPrompts, NonFiniteActivation, ShapeMismatch
from tv_lens.intervention import Intervention, rounded
from tv_lens.site import Site


@dataclass(frozen=True, eq=False)
class Edit:
    """An intervention and, where the caller already knows them, the batch rows and columns it acts on.

    Without `rows` and `cols` the intervention's own `site.pos` decides, on every row. With them, entry i of the
    selection is column `cols[i]` of row `rows[i]`, and of its head `heads[i]` where the heads differ: this is how many
    interventions share one forward pass.
    """

    intervention: Intervention
    rows: Int[Tensor, "*n"] | None = None
    cols: Int[Tensor, "*n"] | None = None
    heads: Int[Tensor, "*n"] | None = None

    @property
    def site(self) -> Site:
        return self.intervention.site


def refuse_duplicates(edits: Sequence[Edit], batch: TokenBatch | None = None) -> None:
    """Raises `DuplicateSite` if two edits that are not placed on rows share a site: they must be stacked on purpose.

    Once the prompts are known, two spellings of one position (6 and -1 of seven tokens) count as one, too.
    """
    by_tensor: dict[Site, list[Site]] = {}
    for site in (edit.site for edit in edits if edit.rows is None):
        earlier = by_tensor.setdefault(site.tensor, [])
        twin = next((other for other in earlier if other.overlaps(site) or _meet(other, site, batch)), None)
        if twin is not None:
            raise DuplicateSite(
                "Two interventions edit the same site in one call.",
                got=f"{twin} and {site}",
                do="stack them on purpose: first.then(second); or nest two model.intervene contexts.",
            )
        earlier.append(site)


def _meet(one: Site, other: Site, batch: TokenBatch | None) -> bool:
    """Whether two sites of one tensor that name positions in other words mean the same token of some prompt."""
    if batch is None or not one.at(None).overlaps(other.at(None)):
        return False
    ours, theirs = (torch.stack([batch.index(p) for p in site.positions]) for site in (one, other))
    return bool((ours[:, None] == theirs[None]).any())


def refuse_misaligned(edits: Sequence[Edit], batch: TokenBatch) -> None:
    """Raises `MisalignedPrompts` if an edit would write one prompt's padding into another's tokens."""
    if not batch.is_padded:
        return
    for edit in edits:
        everywhere = edit.site.pos is None or "key_pos" in edit.site.entry.axes
        if edit.rows is None and everywhere and edit.intervention.mixes_prompts:
            shortest, longest = int(batch.lengths.min()), int(batch.lengths.max())
            raise MisalignedPrompts(
                f"{edit.intervention.label} takes values from prompts of other lengths, which have padding there.",
                got=f"prompts of {shortest} to {longest} tokens",
                do="name a position that every prompt has, such as -1, or use prompts of one length.",
            )


def positions_of(
    batch: TokenBatch, pos: int | tuple[int, ...], device: torch.device
) -> tuple[Int[Tensor, "batch *one"], Int[Tensor, "batch *n"]]:
    """The row and column of each selected token: vectors for one position, `batch n` for several."""
    rows = torch.arange(len(batch), device=device)
    if isinstance(pos, int):
        return rows, batch.index(pos).to(device)
    return rows[:, None], torch.stack([batch.index(p) for p in pos], dim=1).to(device)


def placed_within(edit: Intervention, prompts: TokenBatch) -> Edit:
    """The edit at its positions within the prompts, whatever tokens follow them in the batch."""
    pos = Site.parse(edit.site).pos
    if pos is None:
        return Edit(edit)
    rows, cols = positions_of(prompts, cast("int | tuple[int, ...]", pos), prompts.ids.device)
    return Edit(edit, rows.expand_as(cols), cols)


def position_second(x: Tensor, site: Site) -> Tensor:
    """A view with the position axis right after the batch, and the head's axis gone where the site names a head."""
    if site.entry.position_axis == "query_pos":
        x = rearrange(x, "batch head query key -> batch query head key")
    return x if site.head is None else x.select(2, site.head)


def edited(
    x: Tensor, intervention: Intervention, rows: Tensor | None, cols: Tensor | None, heads: Tensor | None = None
) -> Tensor:
    """A new tensor with the intervention's edit at the selected rows, columns and heads; x is left as it was."""
    site = Site.parse(intervention.site)
    # A whole tensor is edited in the table's own axes, so that what was captured can be put back as it is.
    by_position = position_second if rows is not None or site.head is not None else lambda tensor, _: tensor
    where = tuple(index.to(x.device) for index in (rows, cols, heads) if index is not None) or (...,)
    selected = by_position(x, site)[where]
    untouched = None if x.is_inference() else x._version  # tensors of inference mode do not count their edits
    # Scores that the causal mask hides stay hidden, whatever an edit writes there; the edit is given 0 in their place.
    hidden = selected <= torch.finfo(x.dtype).min / 2 if site.component == "scores" else None
    value = intervention.edit(selected if hidden is None else selected.masked_fill(hidden, 0.0))
    if untouched is not None and x._version != untouched:
        raise InvalidArgument(
            f"{intervention.label} changes its input in place.",
            do="return a new tensor, such as x * 0 instead of x.zero_().",
        )
    if value.shape != selected.shape:
        raise ShapeMismatch(
            f"{intervention.label} changed the shape of what it edits.",
            got=f"{list(value.shape)}",
            allowed=f"{list(selected.shape)}",
        )
    value = value if hidden is None else torch.where(hidden, selected, value)
    held = rounded(value, x, intervention)
    # An edit of one row of many is left to the readout, which names the row and its prompt.
    of_one_row = rows is not None and site.pos is None
    if not of_one_row and not _finite(held, site):
        raise _refused(selected, held, intervention)
    out = x.clone()
    by_position(out, site)[where] = held
    return out


def _finite(held: Tensor, site: Site) -> bool:
    """Whether all numbers are finite; a score may be minus infinity, which hides a key."""
    return bool((held < torch.inf).all() if site.component == "scores" else torch.isfinite(held).all())


def _refused(before: Tensor, held: Tensor, intervention: Intervention) -> NonFiniteActivation:
    """The error about an edit after which its site is not finite."""
    broken, kind = ~torch.isfinite(held), str(held.dtype).removeprefix("torch.")
    n = int(broken.sum())
    if not bool(torch.isfinite(before[broken]).all()):
        return NonFiniteActivation(
            f"The model's own activation at {intervention.site} is NaN or infinite before {intervention.label}.",
            got=f"{n} of {held.numel()} numbers",
            do=f"the model or an earlier edit leaves the range of {kind} there: load it in float32 or bfloat16.",
        )
    return NonFiniteActivation(
        f"{intervention.label} makes values that are NaN or infinite.",
        got=f"{n} of {held.numel()} numbers at {intervention.site}, which was finite before",
        do="look at its edit: a division by zero, a logarithm of zero, or a product beyond the range of " + kind + "?",
    )
