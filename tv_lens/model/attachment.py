"""What is attached to a model, and what that does to each tensor on its way.

Plain functions of tensors: only the registry gives them to TransformerLens as hooks (docs/registry-laws.md, R1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import ShapeMismatch, SiteNotReached
from tv_lens.model.editing import Edit, edited, position_second, positions_of
from tv_lens.model.rerouting import BlockCall, gathered
from tv_lens.site import Site

UNEMBED = "unembed.hook_in"  # here positions whose logits nobody wants are dropped, before the unembedding


@dataclass(eq=False)
class Attachment:
    """What one caller has attached: its edits, the sites it reads, and what was read in the last forward pass.

    Attributes:
        batch: the tokens of the pass that it is attached for; None for an attachment around several passes.
        frozen: whether no weight requires a gradient as long as it is attached.
        hooks: further functions, each at a hook of TransformerLens's, which need not run in a pass (the probe's).
        flags: TransformerLens's flags to raise, beside those that its sites need.
    """

    who: str
    edits: tuple[Edit, ...] = ()
    reads: tuple[Site, ...] = ()
    logits_at: Int[Tensor, "batch n"] | None = None
    logit_columns: Int[Tensor, "batch n k"] | None = None
    block_call: BlockCall | None = None
    traced: tuple[Site, ...] = ()
    batch: TokenBatch | None = None
    frozen: bool = False
    hooks: tuple[tuple[str, Hook], ...] = ()
    flags: tuple[str, ...] = ()
    values: dict[Site, Tensor] = field(default_factory=dict)
    live: dict[Site, Tensor] = field(default_factory=dict)
    fired: dict[Site, int] = field(default_factory=dict)

    @property
    def all_flags(self) -> set[str]:
        """The TransformerLens flags without which some of its hooks would not run."""
        return {*self.flags, *(site.entry.flag for site in self.sites if site.entry.flag)}

    @property
    def sites(self) -> list[Site]:
        return [edit.site for edit in self.edits] + list(self.reads) + list(self.traced)

    def start_pass(self) -> None:
        self.fired.clear()
        self.values.clear()
        self.live.clear()

    def check_reached(self) -> None:
        """Raises `SiteNotReached` if some site did not run since `start_pass`: an edit never fails silently."""
        missed = [str(site) for site in self.sites if not self.fired.get(site.tensor)]
        if missed:
            raise SiteNotReached(
                "A forward pass ended without reaching every attached site.",
                got=", ".join(missed),
                do="the pass stopped early, or this architecture skips the site; "
                "print(model.registry) shows which sites it has.",
            )


class Hook:
    """A function with its first arguments, as TransformerLens calls a hook."""

    NAME = "a hook of tv_lens"

    def __init__(self, function: Callable[..., Tensor], *arguments: Any):
        self.function, self.arguments = function, arguments

    def __call__(self, x: Tensor, hook: object) -> Tensor:
        return self.function(*self.arguments, x)

    def __repr__(self) -> str:
        return self.NAME  # TransformerLens gives this name to the function that it registers with PyTorch


def is_ours(hook: object) -> bool:
    """Whether a hook, or the function that TransformerLens made of it, was added by the registry."""
    return isinstance(hook, Hook) or getattr(hook, "__name__", None) == Hook.NAME


class Attachments:
    """All that is attached to a model now, merged into one function for each tensor.

    Merging keeps the computation's own order where contexts are nested: a residual stream written by an outer
    context is not undone by an inner one that edits what flows into it.

    Args:
        active: what is attached, in entry order.

    Attributes:
        batch: the tokens of the pass that runs; None where the TransformerLens model is called directly.
    """

    def __init__(self, active: Sequence[Attachment]) -> None:
        self.active = list(active)
        self.batch = next((one.batch for one in reversed(self.active) if one.batch is not None), None)
        self._stream_before: dict[int | None, Tensor] = {}
        self._positions: dict[tuple[object, torch.device], tuple[TokenBatch, tuple[Tensor, Tensor]]] = {}

    def hook_functions(self) -> list[tuple[str, Hook]]:
        """TransformerLens's name of each tensor that is edited, read or traced, with the function that runs there."""
        edits: dict[Site, list[tuple[Attachment, Edit]]] = {}
        reads: dict[Site, list[tuple[Attachment, Site]]] = {}
        traces = {site.tensor for attachment in self.active for site in attachment.traced}
        for attachment in self.active:
            for edit in attachment.edits:
                edits.setdefault(edit.site.tensor, []).append((attachment, edit))
            for site in attachment.reads:
                reads.setdefault(site.tensor, []).append((attachment, site))
        # An edited resid_mid is not written at its own hook, but where its layer's stream comes in and attention adds.
        detours = {t.layer: edits.pop(t) for t in list(edits) if t.component == "resid_mid"}
        ends = {Site(name, layer) for layer in detours for name in ("resid_pre", "attn_out")}
        hooks = [
            (t.hook_name, Hook(self._passing, t, edits.get(t, []), reads.get(t, []), detours.get(t.layer, [])))
            for t in sorted({*edits, *reads, *ends, *traces}, key=str)
        ]
        gather = [a.logits_at for a in self.active if a.logits_at is not None]
        if gather:
            hooks.append((UNEMBED, Hook(gathered, gather[-1])))
        return [*hooks, *(hook for attachment in self.active for hook in attachment.hooks)]

    def _passing(
        self,
        tensor: Site,
        edits: Sequence[tuple[Attachment, Edit]],
        reads: Sequence[tuple[Attachment, Site]],
        detour: Sequence[tuple[Attachment, Edit]],
        x: Tensor,
    ) -> Tensor:
        """What happens at a tensor on its way: its edits in order, then its captures, then resid_mid's detour.

        TransformerLens's resid_mid hook sits on the MLP's branch, so a write there would not reach the skip
        connection. It is written through attn_out instead: the stream before the layer is remembered on the way in,
        and attn_out becomes what is missing from it to the edited sum: exact, and untouched where nothing was edited.
        """
        for attachment, edit in edits:
            x = self._apply(edit, x, attachment)
        for attachment, site in reads:
            # Only what the site names is copied, and it is a copy: no later edit changes what was read.
            attachment.values[site] = self._selected(x, site).detach().clone()
            attachment.fired[tensor] = attachment.fired.get(tensor, 0) + 1
        if detour and tensor.component == "resid_pre":
            self._stream_before[tensor.layer] = x
        if detour and tensor.component == "attn_out":
            before = self._stream_before.pop(tensor.layer)
            middle = before + x
            edited_middle = middle
            for attachment, edit in detour:
                edited_middle = self._apply(edit, edited_middle, attachment)
            x = torch.where(edited_middle == middle, x, edited_middle - before)
        for attachment in self.active:
            if tensor in attachment.traced:
                if tensor.component == "resid_mid":  # only what the MLP is given is traced here, not what passes it
                    x = x.view_as(x)
                x = x if x.requires_grad else x.detach().requires_grad_()
                attachment.live[tensor] = x
                attachment.fired[tensor] = attachment.fired.get(tensor, 0) + 1
        return x

    def _apply(self, edit: Edit, x: Tensor, attachment: Attachment) -> Tensor:
        attachment.fired[edit.site.tensor] = attachment.fired.get(edit.site.tensor, 0) + 1
        rows, cols = edit.rows, edit.cols
        if rows is None and edit.site.pos is not None:
            rows, cols = self._places(x, edit.site)
        return edited(x, edit.intervention, rows, cols, edit.heads)

    def _selected(self, x: Tensor, site: Site) -> Tensor:
        if site.pos is None:
            return x if site.head is None else position_second(x, site)
        return position_second(x, site)[self._places(x, site)]

    def _places(self, x: Tensor, site: Site) -> tuple[Tensor, Tensor]:
        """The row and column of each token that a site names; found once for all layers, since that reads the mask."""
        batch, key = self._batch_for(x, site), (site.pos, x.device)
        known = self._positions.get(key)
        if known is None or known[0] is not batch:
            known = self._positions[key] = (batch, positions_of(batch, site.pos, x.device))
        return known[1]

    def _batch_for(self, x: Tensor, site: Site) -> TokenBatch:
        axes = site.entry.axes
        shape = x.shape[axes.index("batch")], x.shape[axes.index(site.entry.position_axis)]
        if self.batch is not None and tuple(self.batch.ids.shape) == shape:
            return self.batch
        if self.batch is not None:
            raise ShapeMismatch(
                f"{site} has other rows or positions than the tokens.",
                got=f"{list(shape)}",
                allowed=f"{list(self.batch.ids.shape)}",
            )
        # The TransformerLens model was called directly: without a mask every token counts as real.
        return TokenBatch(
            torch.zeros(shape, dtype=torch.long, device="cpu"), torch.ones(shape, dtype=torch.bool, device="cpu")
        )
