"""Which components of a model can be read and written: the verdicts of the registry's probe, and their description.

A hook that exists is not enough. Some hooks fire and their edits are discarded (the attention patterns of GPT-J,
GPT-Neo and OPT in TransformerLens 4.3), so each component is perturbed once, and counts as writable only if the logits
moved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.intervention import Intervention
from tv_lens.site import COMPONENTS, Component, ModelShape, Site


@dataclass(frozen=True)
class Support:
    """What can be done at a component: read it, write it, or neither, and why."""

    read: bool
    write: bool
    reason: str = ""

    @property
    def word(self) -> str:
        return "write" if self.write else "read" if self.read else "absent"


NO_HOOK = Support(False, False, "this architecture has no such hook in TransformerLens.")
NEVER_FIRES = Support(False, False, "the hook exists, but does not run in a forward pass of this architecture.")
DISCARDED = Support(
    True,
    False,
    "the hook can be read, but the model does not use what is written there "
    "(attention is computed by the original code).",
)
MIDDLE_NOT_A_SUM = Support(
    True, False, "resid_pre + attn_out is not resid_mid here, so it cannot be written through attn_out."
)
NOT_SCORES = Support(
    False, False, "the hook holds the pattern here, not the scores (attention is computed by the original code)."
)
WRITABLE = Support(True, True)


def wrong_shape(shape: tuple[int, ...], entry: Component) -> Support:
    return Support(False, False, f"its tensor has the shape {list(shape)}, which is not {' '.join(entry.axes)}.")


@dataclass(frozen=True, eq=False, repr=False)
class Perturb(Intervention):
    """Noise of the size of the values: the probe's edit. Masked attention scores stay masked."""

    seed: int = 0

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        live = x.abs() < 1e30
        size = x[live].float().pow(2).mean().sqrt().clamp(min=0.1) if live.any() else 1.0
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float32, device="cpu").to(x.device)
        return torch.where(live, x + (size * noise).to(x.dtype), x)


def other_tokens(tokens: Int[Tensor, "1 pos"], n_ids: int, seed: int) -> Int[Tensor, "1 pos"]:
    """As many random tokens from the whole vocabulary, for a network that is silent on the first few."""
    drawn = torch.randint(n_ids, tokens.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
    return drawn.to(tokens.device)


def layer_kinds(blocks: list, layer_types: list | None) -> list[int]:
    """Each layer's representative: layers built of the same classes behave alike, so one of them is probed."""
    first: dict[object, int] = {}
    chosen = []
    for i, block in enumerate(blocks):
        modules = tuple(sorted((name, type(part).__name__) for name, part in block.named_children()))
        kind = (type(block).__name__, modules, None if layer_types is None else layer_types[i])
        chosen.append(first.setdefault(kind, i))
    return chosen


def verdicts(
    candidates: Sequence[Site],
    hooked: Collection[Site],
    values: Mapping[Site, Tensor],
    logits: Float[Tensor, "row n"],
    shape: ModelShape,
) -> dict[Site, Support]:
    """Each candidate's verdict from the probe's pass; candidate i was perturbed in row i + 1, and row 0 not at all."""
    spread = logits[0].std()
    moved = (logits - logits[0]).abs().amax(-1) > 1e-4 * spread
    by_site = {}
    for row, site in enumerate(candidates, start=1):
        value = values.get(site)
        if site not in hooked:
            by_site[site] = NO_HOOK
        elif value is None:
            by_site[site] = NEVER_FIRES
        elif not _has_axes(value, site.entry, len(logits), shape):
            by_site[site] = wrong_shape(tuple(value.shape), site.entry)
        elif site.component == "scores" and _equal(value, values.get(Site("pattern", site.layer))):
            by_site[site] = NOT_SCORES
        elif site.component == "resid_mid":
            parts = [values.get(Site(name, site.layer)) for name in ("resid_pre", "attn_out")]
            if any(part is None or part.shape != value.shape for part in parts):
                by_site[site] = MIDDLE_NOT_A_SUM
                continue
            gap = (parts[0][0] + parts[1][0] - value[0]).abs().max()  # row 0: the others were perturbed in between
            by_site[site] = WRITABLE if gap <= 1e-2 * value[0].abs().max() else MIDDLE_NOT_A_SUM
        else:
            by_site[site] = WRITABLE if moved[row] else DISCARDED
    return by_site


def _equal(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(value[0], other[0])


def _has_axes(value: Tensor, entry: Component, batch: int, shape: ModelShape) -> bool:
    """Whether a tensor has the axes of the table of components; the number of neurons may be any."""
    pos = value.shape[entry.axes.index(entry.position_axis)] if value.ndim == len(entry.axes) else 0
    known = dict(batch=batch, pos=pos, query_pos=pos, key_pos=pos)
    wanted = [known.get(axis) or (None if axis == "d_mlp" else shape.size(axis)) for axis in entry.axes]
    return len(wanted) == value.ndim and all(w in (None, have) for w, have in zip(wanted, value.shape))


def table(support: Mapping[tuple[str, int | None], Support], shape: ModelShape) -> str:
    """Lines of a table: component, what can be done, its axes with sizes, TransformerLens's name, meaning."""
    lines = []
    for name, entry in COMPONENTS.items():
        layers = range(shape.n_layers) if entry.layered else [None]
        words = {support[name, layer].word for layer in layers}
        word = words.pop() if len(words) == 1 else "mixed"
        axes = " ".join(axis if (n := shape.size(axis)) is None else f"{axis}={n}" for axis in entry.axes)
        lines.append(f"  {name:<11}{word:<8}{axes:<42}{entry.hook:<38}{entry.meaning}")
    return "\n".join(lines)
