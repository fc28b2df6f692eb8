"""A TransformerLens bridge with its registry, and one hooked pass through it, with gradients or without.

`model/capture.py` runs a `HookedBridge`; `HookedModel` in `model/hooked_model.py` builds on both and adds texts and
verbs. So imports run one way: bridge, capture, model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.batch import TokenBatch
from tv_lens.cores import warn_of_threads
from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Intervention
from tv_lens.model.attachment import Attachment
from tv_lens.model.bridging import shape_of
from tv_lens.model.editing import Edit
from tv_lens.model.facts import Facts
from tv_lens.model.grad_mode import GradMode
from tv_lens.model.length_tables import length_arguments
from tv_lens.model.lock import check_process
from tv_lens.model.passes import raises_out_of_memory
from tv_lens.model.registry import HookRegistry
from tv_lens.model.rerouting import BlockCall
from tv_lens.model.training_mode import refuse_training_mode
from tv_lens.site import Site
from tv_lens.torch_settings import plain_settings


class HookedBridge:
    """A TransformerBridge with raw weights whose every tensor can be read and edited in a pass over tokens.

    Args:
        bridge: the TransformerLens model, without folded weights.
    """

    @plain_settings()
    def __init__(self, bridge: TransformerBridge):
        self.tl = bridge
        self.shape = shape_of(bridge)
        self.registry = HookRegistry(bridge, self.shape)
        self.registry.probe(self.n_ids)
        self.facts = Facts(bridge, self.registry)
        if self.device.type == "cpu":
            warn_of_threads()

    # ---- what it is ---------------------------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        return self.shape.n_layers

    @property
    def n_ids(self) -> int:
        """How many token ids the model reads: its vocabulary, where it reads and predicts the same tokens."""
        return self.shape.d_vocab

    @property
    def architecture(self) -> str:
        return self.registry.architecture

    @property
    def device(self) -> torch.device:
        return self.registry.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.tl.parameters()).dtype

    # ---- one pass -----------------------------------------------------------------------------------------------

    @plain_settings()
    @raises_out_of_memory
    def forward(
        self,
        batch: TokenBatch,
        edits: Sequence[Edit | Intervention] = (),
        reads: Sequence[Site] = (),
        logits_at: Int[Tensor, "batch n"] | None = None,
        stop_after: int | None = None,
        who: str = "model.forward",
        logit_columns: Int[Tensor, "batch n k"] | None = None,
        block_call: BlockCall | None = None,
        **model_arguments: Any,
    ) -> tuple[Float[Tensor, "batch n d_vocab"] | None, Attachment]:
        """One hooked pass: the logits, and the attachment with what was read.

        Args:
            batch: right-padded tokens.
            edits: interventions, or edits placed on rows and columns of this batch.
            reads: the sites to capture.
            logits_at: columns of each row whose logits are wanted; every position if None.
            stop_after: the last layer to run; no logits are computed then.
            who: the verb that calls, for the registry.
            logit_columns: the only tokens whose logits are wanted, at each of `logits_at`.
            block_call: called instead of each block, with the block's own forward among its arguments.
            model_arguments: passed to the model as they are (a mask, position ids, a cache).
        """
        gathers = logits_at is not None and self.registry.can_gather
        narrow_to = logits_at if gathers else None
        attaching = self.registry.attach(who, edits, reads, narrow_to, logit_columns, block_call, batch=batch)
        with attaching as attachment, GradMode(False):
            if stop_after is not None:
                stop_after = max(stop_after, self.registry.last_edited_layer())
                if stop_after < self.n_layers - 1:
                    model_arguments["stop_at_layer"] = stop_after + 1
            model_arguments |= length_arguments(self.tl, batch, model_arguments)
            out = self._pass(batch, {**self.registry.pass_arguments, **model_arguments})
        if stop_after is not None:
            return None, attachment
        if logits_at is not None and (not gathers or out.shape[1] != logits_at.shape[1]):  # or the hook was discarded
            out = out[torch.arange(len(batch), device=out.device)[:, None], logits_at.to(out.device)]
        return out.float(), attachment

    @plain_settings()
    @raises_out_of_memory
    def gradients(
        self,
        batch: TokenBatch,
        sites: Sequence[Site],
        score: Callable[[Tensor], Float[Tensor, "batch"]],
        edits: Sequence[Edit | Intervention] = (),
        reads: Sequence[Site] = (),
        at: Site | None = None,
        who: str = "model.gradients",
        branches: Sequence[Site] = (),
    ) -> tuple[Float[Tensor, "batch"], dict[Site, Tensor], Attachment]:
        """Each prompt's score, its gradient at whole tensors, and the attachment with what was read.

        No weight takes part in the graph, which begins at the first of the sites.

        Args:
            batch: right-padded tokens.
            sites: where gradients are wanted. That of `resid_mid` is taken at `attn_out`, where it is the same.
            score: takes the logits after each prompt's last token, or the value of `at`, and gives one number per
                prompt, which must depend on that prompt alone.
            edits: interventions, as `forward` takes them.
            reads: the sites to capture in the same pass.
            at: a tensor to score instead of the logits; the pass stops after its layer.
            who: the verb that calls, for the registry.
            branches: `resid_mid` of layers where the gradient is wanted that goes through the MLP, not past it.
        """
        places = {
            site: Site("attn_out", site.layer) if site.component == "resid_mid" else site.tensor for site in sites
        } | {site: site.tensor for site in branches}
        traced = dict.fromkeys([*places.values(), *([] if at is None else [at.tensor])])
        gathers = at is None and self.registry.can_gather
        arguments = self.registry.pass_arguments | length_arguments(self.tl, batch, {})
        if at is not None and (stop := max([at, *places], key=lambda site: site.layer or 0).layer) < self.n_layers - 1:
            arguments["stop_at_layer"] = stop + 1
        last = batch.last[:, None] if gathers else None
        attaching = self.registry.attach(who, edits, reads, last, traced=tuple(traced), batch=batch, frozen=True)
        with attaching as attachment, GradMode(True):
            out = self._pass(batch, arguments)
            if at is not None:
                out = attachment.live[at.tensor]
            elif out.shape[1] != 1:
                out = out[torch.arange(len(batch), device=out.device), batch.last.to(out.device)]
            else:
                out = out[:, 0]
            values = score(out.float())
            tensors = [attachment.live[place] for place in places.values()]
            slopes = torch.autograd.grad(values.sum(), tensors, allow_unused=True)
        attachment.live.clear()
        gradients = {site: torch.zeros_like(x) if g is None else g for site, x, g in zip(places, tensors, slopes)}
        return values.detach(), gradients, attachment

    def _pass(self, batch: TokenBatch, arguments: dict[str, object]) -> Tensor:
        """The model's output in one pass in which everything that is attached must run."""
        check_process()
        if self.tl.training or self.tl.original_model.training:
            refuse_training_mode(self.tl)
        attached = self.registry.attached
        for attachment in attached:
            attachment.start_pass()
        out = self.tl(batch.ids, **arguments)
        for attachment in attached:
            attachment.check_reached()
        return out

    # ---- copies ---------------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: object = None) -> NoReturn:
        raise InvalidArgument(
            "A hooked model cannot be copied: its hooks point into its own modules.",
            got=f"copy of {type(self).__name__}",
            do="load it a second time: tv.load(...); tv.load(model.tl) makes a second HookedModel of the same weights.",
        )

    __copy__ = __deepcopy__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument(
            "A hooked model cannot be pickled.",
            got=f"pickle of {type(self).__name__}",
            do="pass its name or folder to the other process and load it there: tv.load(...).",
        )
