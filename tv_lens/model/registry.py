"""Who is attached where: the only code that adds hooks to a model or sets a TransformerLens flag.

Every verb of the library reaches into a model through `HookRegistry.attach`, so the laws that make a result
trustworthy are enforced in one place: what is attached runs or raises, edits are out of place, the model is left as it
was found, results are keyed by `Site` and not by TransformerLens's aliased names, nested contexts compose in the order
in which they were entered, a write that the model would discard is refused, and two threads never share a hooked pass.
docs/registry-laws.md states all ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.batch import TokenBatch
from tv_lens.errors import SiteAbsent, SiteNotWritable
from tv_lens.intervention import Intervention
from tv_lens.model.attachment import UNEMBED, Attachment
from tv_lens.model.editing import Edit, refuse_duplicates, refuse_misaligned
from tv_lens.model.foreign_hooks import foreign_hooks
from tv_lens.model.installation import Attaching, Installation
from tv_lens.model.lock import Caller, ModelLock
from tv_lens.model.probe import Probe
from tv_lens.model.rerouting import BlockCall
from tv_lens.model.support import Support, table
from tv_lens.site import COMPONENTS, ModelShape, Site


class HookRegistry:
    """The hooks and flags of one model, and who holds them.

    Example:
        >>> import tv_lens as tv
        >>> model = tv.circuits.truth.induction(n=2).model
        >>> model.registry.support(tv.Site("z", layer=1)).word
        'write'
    """

    def __init__(self, bridge: TransformerBridge, shape: ModelShape):
        self._bridge = bridge
        self._shape = shape
        self._installation = Installation.of(bridge)
        self._support: dict[tuple[str, int | None], Support] = {}
        self.pass_arguments: dict[str, object] = {}

    # ---- what the model has -------------------------------------------------------------------------------------

    def support(self, site: Site) -> Support:
        """Whether a component of a layer can be read and written, by the probe: a hook alone proves neither."""
        return self._support[site.component, site.layer]

    def probe(self, n_ids: int) -> None:
        """Finds, with a few small passes, which components can be read and which can be written (`model/probe.py`)."""
        with self.bare("the registry's probe"):
            probe = Probe(self._bridge, self._shape, self._installation, n_ids, self.device)
            self.pass_arguments = probe.arguments()
            self._support = probe.supports()

    def check(self, site: Site, write: bool) -> Site:
        """The site, if it exists in this model and can be read (or written).

        Raises:
            SiteError, SiteAbsent, SiteNotWritable: with what the model has instead.
        """
        site.check(self._shape)
        support = self.support(site)
        if not support.read:
            readable = [
                name
                for name, entry in COMPONENTS.items()
                if self._support[name, site.layer if entry.layered else None].read
            ]
            raise SiteAbsent(
                f"This {self.architecture} has no {site.component}.",
                got=str(site),
                allowed=", ".join(readable),
                do=support.reason,
            )
        if write and not support.write:
            raise SiteNotWritable(
                f"An edit at {site} would be discarded by {self.architecture}.", got=str(site), do=support.reason
            )
        return site

    @property
    def device(self) -> torch.device:
        """Where tokens go in: the first device that holds weights; weights that accelerate offloads count for none."""
        devices = (parameter.device for parameter in self._bridge.parameters())
        return next((device for device in devices if device.type != "meta"), torch.device("cpu"))

    @property
    def architecture(self) -> str:
        return type(self._bridge.original_model).__name__

    @property
    def lock(self) -> ModelLock:
        """Held by whoever has something attached; the same for all models of one bridge."""
        return self._installation.lock

    @property
    def attached(self) -> tuple[Attachment, ...]:
        """Who is attached now, in entry order, whichever thread attached it."""
        return tuple(self._installation.attached())

    @property
    def attached_here(self) -> tuple[Attachment, ...]:
        """What acts on the passes of the calling thread, and in an event loop of the running task, in entry order."""
        return tuple(self._installation.attached(Caller.now()))

    def edits_around(self) -> list[Intervention]:
        """Every edit that acts on the passes of the calling thread now, whoever attached it."""
        return [edit.intervention for attachment in self.attached_here for edit in attachment.edits]

    @property
    def can_narrow(self) -> bool:
        """Whether `logit_columns` is honoured: the unembedding is one linear map in memory."""
        linear = getattr(getattr(self._bridge, "unembed", None), "original_component", None)
        return type(linear) is torch.nn.Linear and linear.weight.device.type != "meta"

    @property
    def can_gather(self) -> bool:
        """Whether `logits_at` is honoured: the model's unembedding can be given fewer positions."""
        return self._bridge.get_hook_point(UNEMBED) is not None

    def foreign_hooks(self) -> list[str]:
        """The hooks of every kind on the model that neither this registry nor TransformerLens itself added, by name."""
        return [hook.name for hook in foreign_hooks(self._bridge)]

    # ---- attaching ----------------------------------------------------------------------------------------------

    def attach(
        self,
        who: str,
        edits: Sequence[Edit | Intervention] = (),
        reads: Sequence[Site] = (),
        logits_at: Int[Tensor, "batch n"] | None = None,
        logit_columns: Int[Tensor, "batch n k"] | None = None,
        block_call: BlockCall | None = None,
        traced: Sequence[Site] = (),
        batch: TokenBatch | None = None,
        frozen: bool = False,
        gives: Any = None,
    ) -> Attaching:
        """An attachment that lasts as long as the context, with the model's lock held.

        Args:
            who: the verb that calls, for `print(model.registry)`.
            edits: interventions, in the order in which they act; two at one site are refused unless they are placed
                on named rows, or stacked with `Intervention.then`.
            reads: the sites to capture, after all edits; each value is `batch (pos) *axes`, without the head's axis
                where a site names a head.
            logits_at: columns of each row whose logits are wanted; the other positions skip the unembedding.
            logit_columns: for each of those, the only tokens whose logits are wanted.
            block_call: called instead of each block (this is how the row engine computes fewer rows).
            traced: whole tensors, after all edits, at which a gradient can be taken afterwards; the graph begins at
                the first of them.
            batch: the tokens of the one pass that the context is for, so that position -1 is each row's last.
            frozen: whether no weight requires a gradient inside.
            gives: what `with ... as` binds; the attachment if None.
        """
        placed = tuple(edit if isinstance(edit, Edit) else Edit(edit) for edit in edits)
        refuse_duplicates(placed)
        attachment = Attachment(
            who, placed, tuple(reads), logits_at, logit_columns, block_call, tuple(traced), batch, frozen
        )

        def check() -> None:
            for edit in placed:
                self.check(edit.site, write=True)
            for site in (*reads, *traced):
                self.check(site, write=False)
            if batch is not None:
                for active in (*self.attached, attachment):
                    refuse_duplicates(active.edits, batch)
                    refuse_misaligned(active.edits, batch)

        return Attaching(self._installation, who, attachment, check, passes=batch is not None, gives=gives)

    def bare(self, who: str) -> Attaching:
        """A context in which nothing of ours is attached, whatever is attached around it; the lock is held."""
        return Attaching(self._installation, who, passes=True)

    def last_edited_layer(self) -> int:
        """The deepest layer that an active attachment edits or reads: -1 if none does, `n_layers` for final_norm."""
        unlayered = {"embed": -1, "final_norm": self._shape.n_layers}
        sites = (site for attachment in self.attached for site in attachment.sites)
        return max((unlayered.get(site.component, site.layer) for site in sites), default=-1)

    def __repr__(self) -> str:
        head = f"{self.architecture}: {self._shape.n_layers} layers; "
        if not self.attached:
            head += "nothing is attached"
        for attachment in self.attached:
            edits = ", ".join(edit.intervention.label for edit in attachment.edits) or "no edit"
            reads = ", ".join(str(site) for site in attachment.reads) or "nothing"
            head += f"\n  attached by {attachment.who}: {edits}; reads {reads}"
        return head + "\n" + table(self._support, self._shape)
