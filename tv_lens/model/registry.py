"""Who is attached where: the only code that adds hooks to a model or sets a TransformerLens flag.

Every verb of the library reaches into a model through `HookRegistry.attach`, so the laws that make a result
trustworthy are enforced in one place: what is attached runs or raises, edits are out of place, the model is left as it
was found, results are keyed by `Site` and not by TransformerLens's aliased names, nested contexts compose in the order
in which they were entered, a write that the model would discard is refused, and two threads never share a hooked pass.
docs/registry-laws.md states all ten.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.batch import TokenBatch
from tv_lens.errors import ModelLoadError, SiteAbsent, SiteNotWritable
from tv_lens.intervention import Intervention
from tv_lens.model.attachment import UNEMBED, Attachment, Attachments, Hook
from tv_lens.model.editing import Edit, refuse_duplicates, refuse_misaligned
from tv_lens.model.rerouting import BlockCall, narrowed, replaced_blocks
from tv_lens.model.support import DISCARDED, WRITABLE, Perturb, Support, layer_kinds, other_tokens, table, verdicts
from tv_lens.site import COMPONENTS, ModelShape, Site


def _perturbed(values: dict[Site, Tensor], site: Site, row: int, seed: int, x: Tensor) -> Tensor:
    """The probe's hook: records the tensor and perturbs one row of it."""
    values[site] = x.detach()
    if site.component == "resid_mid":  # never written at its own hook
        return x
    out = x.clone()
    out[row] = Perturb(site, seed).edit(x[row])
    return out


def _traced(live: dict[Site, Tensor], site: Site, x: Tensor) -> Tensor:
    """The probe's second hook: passes on a tensor of its own, of which the logits' graph can be asked."""
    live[site] = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
    return live[site]


_LOCKS: WeakKeyDictionary[TransformerBridge, Any] = WeakKeyDictionary()
"""One lock per bridge, even if several `HookedModel`s were made of it: two threads never share a hooked pass."""


class HookRegistry:
    """The hooks and flags of one model, and who holds them.

    Example:
        >>> print(model.registry)  # doctest: +SKIP
        LlamaForCausalLM: 30 layers; nothing is attached
        ...
    """

    def __init__(self, bridge: TransformerBridge, shape: ModelShape):
        self._bridge = bridge
        self._shape = shape
        self._attachments = Attachments()
        self._installed = ExitStack()
        self._support: dict[tuple[str, int | None], Support] = {}
        self._hooks_at_load = set(bridge.list_hooks())  # some adapters (OPT's) carry hooks of their own
        self.pass_arguments: dict[str, object] = {}
        self.lock = _LOCKS.setdefault(bridge, threading.RLock())

    # ---- what the model has -------------------------------------------------------------------------------------

    def support(self, site: Site) -> Support:
        """Whether a component of a layer can be read and written, by the probe: a hook alone proves neither."""
        return self._support[site.component, site.layer]

    def probe(self, n_ids: int) -> None:
        """Finds, with one small forward pass, which components can be read and which can be written.

        Every component of one layer of each kind is perturbed in a batch row of its own, and row 0 is left alone: a
        component is writable if its row's logits differ from row 0's. Some networks are silent on most tokens, so
        where nothing moved, other tokens and other noise are tried, and at last whether the logits are computed from
        what the hook passed on, whatever the weights multiply it with.
        """
        with self.lock, self._nothing_of_ours():
            # Different tokens, if the vocabulary has them: among equal ones the attention pattern makes no difference.
            length = 3 if self._shape.d_vocab > 1 else min(8, int(self._bridge.cfg.n_ctx))
            tokens = torch.arange(1, 1 + length, device=self.device)[None] % n_ids
            self.pass_arguments = self._arguments_that_run(tokens)
            types = getattr(getattr(self._bridge.original_model, "config", None), "layer_types", None)
            kinds = layer_kinds(list(self._bridge.blocks), types)
            candidates = [
                Site(name, layer)
                for name, entry in COMPONENTS.items()
                for layer in (sorted(set(kinds)) if entry.layered else [None])
            ]
            supports = verdicts(candidates, *self._perturbed_pass(candidates, tokens), self._shape)
            for seed in (1, 2):
                if still := [site for site, support in supports.items() if support is DISCARDED]:
                    others = other_tokens(tokens, n_ids, seed)
                    again = verdicts(still, *self._perturbed_pass(still, others, seed), self._shape)
                    supports |= {site: support for site, support in again.items() if support.write}
            still = [site for site, support in supports.items() if support is DISCARDED]
            supports |= dict.fromkeys(self._passed_on(still, tokens), WRITABLE)
        for name, entry in COMPONENTS.items():
            for layer in range(self._shape.n_layers) if entry.layered else [None]:
                representative = None if layer is None else kinds[layer]
                self._support[name, layer] = supports[Site(name, representative)]

    def _arguments_that_run(self, tokens: Int[Tensor, "1 pos"]) -> dict[str, object]:
        """The arguments of every pass: no cache, unless the model only runs with one.

        TransformerLens 4.3 rotates OLMo-2's queries into float32; in bfloat16 the product with the values then fails,
        except that a cache happens to turn the values into float32 too.
        """
        for arguments in ({"use_cache": False}, {"use_cache": True}):
            try:
                with torch.no_grad():
                    self._bridge(tokens, **arguments)
                return arguments
            except RuntimeError as error:
                failure = error
        raise ModelLoadError(
            f"TransformerLens could not run this {self.architecture}.",
            got=str(failure).splitlines()[0],
            do="this configuration is not supported by TransformerLens; choose another model."
            if next(self._bridge.parameters()).dtype == torch.float32
            else "load it in float32: tv.load(..., dtype=torch.float32).",
        ) from failure

    def _perturbed_pass(
        self, candidates: list[Site], tokens: Int[Tensor, "1 pos"], seed: int = 0
    ) -> tuple[set[Site], dict[Site, Tensor], Tensor]:
        """The candidates that have a hook, the values of those that ran, and the logits of row 0 and of their rows."""
        values: dict[Site, Tensor] = {}
        hooked = {site for site in candidates if self._bridge.get_hook_point(site.hook_name) is not None}
        if any(parameter.device.type == "meta" for parameter in self._bridge.parameters()):
            # accelerate brings offloaded weights for a module's own forward; flagged sites read weights without it.
            hooked -= {site for site in hooked if site.entry.flag}
        with ExitStack() as stack, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TransformerLens warns of discarded edits, which is what the probe tests
            for flag in {site.entry.flag for site in hooked if site.entry.flag}:
                try:
                    stack.enter_context(raised_flag(self._bridge, flag))
                except NotImplementedError:  # TransformerLens cannot split this attention by head
                    hooked -= {site for site in hooked if site.entry.flag == flag}
            hooks = [
                (site.hook_name, Hook(_perturbed, values, site, row, seed))
                for row, site in enumerate(candidates, start=1)
                if site in hooked
            ]
            stack.enter_context(self._bridge.hooks(fwd_hooks=hooks))
            logits = self._bridge(tokens.expand(len(candidates) + 1, -1), **self.pass_arguments)
        # A model of one logit is compared at every token.
        return hooked, values, (logits[:, -1] if self._shape.d_vocab > 1 else logits[..., 0]).float()

    def _passed_on(self, sites: list[Site], tokens: Int[Tensor, "1 pos"]) -> list[Site]:
        """The sites whose value, as a hook passed it on, the logits are computed from."""
        live: dict[Site, Tensor] = {}
        if not sites:
            return []
        try:
            with ExitStack() as stack, torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for flag in {site.entry.flag for site in sites if site.entry.flag}:
                    stack.enter_context(raised_flag(self._bridge, flag))
                hooks = [(site.hook_name, Hook(_traced, live, site)) for site in sites]
                stack.enter_context(self._bridge.hooks(fwd_hooks=hooks))
                logits = self._bridge(tokens, **self.pass_arguments)
                slopes = torch.autograd.grad(logits.float().sum(), list(live.values()), allow_unused=True)
        except RuntimeError:  # a part without gradients, or weights of inference mode: nothing is proven
            return []
        return [site for site, slope in zip(live, slopes) if slope is not None]

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
    def attached(self) -> tuple[Attachment, ...]:
        """Who is attached now, in entry order."""
        return tuple(self._attachments.active)

    def edits_around(self) -> list[Intervention]:
        """Every edit that is active now, whoever attached it; waits until another thread's pass is over."""
        with self.lock:
            return [edit.intervention for attachment in self.attached for edit in attachment.edits]

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
        """Names of the hooks on the model that this registry did not add."""
        with self.lock, self._nothing_of_ours():
            return sorted(set(self._bridge.list_hooks()) - self._hooks_at_load)

    # ---- attaching ----------------------------------------------------------------------------------------------

    @contextmanager
    def attach(
        self,
        who: str,
        edits: Sequence[Edit | Intervention] = (),
        reads: Sequence[Site] = (),
        logits_at: Int[Tensor, "batch n"] | None = None,
        logit_columns: Int[Tensor, "batch n k"] | None = None,
        block_call: BlockCall | None = None,
        traced: Sequence[Site] = (),
    ) -> Iterator[Attachment]:
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
        """
        placed = tuple(edit if isinstance(edit, Edit) else Edit(edit) for edit in edits)
        refuse_duplicates(placed)
        attachment = Attachment(who, placed, tuple(reads), logits_at, logit_columns, block_call, tuple(traced))
        with self.lock:
            for edit in placed:
                self.check(edit.site, write=True)
            for site in (*reads, *traced):
                self.check(site, write=False)
            self._attachments.active.append(attachment)
            try:
                self._install()
                yield attachment
            finally:
                self._attachments.active.remove(attachment)
                self._install()

    @contextmanager
    def batch(self, batch: TokenBatch) -> Iterator[None]:
        """Tells the hooks which tokens are real during one forward pass, so that position -1 is each row's last."""
        for attachment in self.attached:
            refuse_duplicates(attachment.edits, batch)
            refuse_misaligned(attachment.edits, batch)
        before, self._attachments.batch = self._attachments.batch, batch
        try:
            yield
        finally:
            self._attachments.batch = before

    def last_edited_layer(self) -> int:
        """The deepest layer that an active attachment edits or reads: -1 if none does, `n_layers` for final_norm."""
        unlayered = {"embed": -1, "final_norm": self._shape.n_layers}
        sites = (site for attachment in self.attached for site in attachment.sites)
        return max((unlayered.get(site.component, site.layer) for site in sites), default=-1)

    @contextmanager
    def _nothing_of_ours(self) -> Iterator[None]:
        active, self._attachments.active = self._attachments.active, []
        self._install()
        try:
            yield
        finally:
            self._attachments.active = active
            self._install()

    def _install(self) -> None:
        """Removes all our hooks and flags and sets those of the active attachments, merged."""
        self._installed.close()
        if not self.attached:
            return
        stack = ExitStack()
        try:
            for flag in {site.entry.flag for a in self.attached for site in a.sites if site.entry.flag}:
                stack.enter_context(raised_flag(self._bridge, flag))
            stack.enter_context(self._bridge.hooks(fwd_hooks=self._attachments.hook_functions()))
            for attachment in self.attached:
                if attachment.block_call is not None:
                    stack.enter_context(replaced_blocks(self._bridge.blocks, attachment.block_call))
                if attachment.logit_columns is not None:
                    stack.enter_context(narrowed(self._bridge.unembed, attachment.logit_columns))
        except BaseException:
            stack.close()
            raise
        self._installed = stack

    def __repr__(self) -> str:
        head = f"{self.architecture}: {self._shape.n_layers} layers; "
        if not self.attached:
            head += "nothing is attached"
        for attachment in self.attached:
            edits = ", ".join(edit.intervention.label for edit in attachment.edits) or "no edit"
            reads = ", ".join(str(site) for site in attachment.reads) or "nothing"
            head += f"\n  attached by {attachment.who}: {edits}; reads {reads}"
        return head + "\n" + table(self._support, self._shape)


@contextmanager
def raised_flag(bridge: TransformerBridge, flag: str) -> Iterator[None]:
    """A context in which a TransformerLens flag is on, and after which it is as it was."""
    setter, before = getattr(bridge, f"set_{flag}"), bool(getattr(bridge.cfg, flag, False))
    setter(True)
    try:
        yield
    finally:
        setter(before)
