"""The probe of a model: which components can be read and which can be written, found when it is loaded.

A hook that exists proves neither. So each component of one layer of each kind is perturbed in a batch row of its own,
and counts as writable if that row's logits differ from those of row 0, which is left alone.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.errors import ModelLoadError
from tv_lens.model.attachment import Attachment, Hook
from tv_lens.model.grad_mode import GradMode
from tv_lens.model.installation import Attaching, Installation
from tv_lens.model.support import DISCARDED, WRITABLE, Perturb, Support, layer_kinds, other_tokens, verdicts
from tv_lens.site import COMPONENTS, ModelShape, Site

WHO = "the registry's probe"


class Probe:
    """Tries a model's components in a few small passes.

    Args:
        bridge: the TransformerLens model.
        shape: its sizes.
        installation: puts the probe's hooks on the model.
        n_ids: how many token ids the model reads.
        device: where tokens go in.
    """

    def __init__(
        self, bridge: TransformerBridge, shape: ModelShape, installation: Installation, n_ids: int, device: torch.device
    ):
        self._bridge, self._shape, self._installation, self._n_ids = bridge, shape, installation, n_ids
        # Different tokens, if the vocabulary has them: among equal ones the attention pattern makes no difference.
        length = 3 if shape.d_vocab > 1 else min(8, int(bridge.cfg.n_ctx))
        self._tokens = torch.arange(1, 1 + length, device=device)[None] % n_ids
        self._arguments: dict[str, object] = {}

    def arguments(self) -> dict[str, object]:
        """The arguments of every pass: no cache, unless the model only runs with one.

        TransformerLens 4.3 rotates OLMo-2's queries into float32; in bfloat16 the product with the values then fails,
        except that a cache happens to turn the values into float32 too.
        """
        for use_cache in (False, True):
            arguments: dict[str, object] = {"use_cache": use_cache}
            try:
                with GradMode(False):
                    self._bridge(self._tokens, **arguments)
            except RuntimeError as error:
                failure = error
            else:
                self._arguments = arguments
                return arguments
        raise ModelLoadError(
            f"TransformerLens could not run this {type(self._bridge.original_model).__name__}.",
            got=str(failure).splitlines()[0],
            do="this configuration is not supported by TransformerLens; choose another model."
            if next(self._bridge.parameters()).dtype == torch.float32
            else "load it in float32: tv.load(..., dtype=torch.float32).",
        ) from failure

    def supports(self) -> dict[tuple[str, int | None], Support]:
        """What can be done at each component of each layer.

        Some networks are silent on most tokens, so where nothing moved, other tokens and other noise are tried, and at
        last whether the logits are computed from what the hook passed on, whatever the weights multiply it with.
        """
        types = getattr(getattr(self._bridge.original_model, "config", None), "layer_types", None)
        kinds = layer_kinds(list(self._bridge.blocks), types)
        candidates = [
            Site(name, layer)
            for name, entry in COMPONENTS.items()
            for layer in (sorted(set(kinds)) if entry.layered else [None])
        ]
        supports = verdicts(candidates, *self._perturbed(candidates, self._tokens), self._shape)
        for seed in (1, 2):
            if still := [site for site, support in supports.items() if support is DISCARDED]:
                others = other_tokens(self._tokens, self._n_ids, seed)
                again = verdicts(still, *self._perturbed(still, others, seed), self._shape)
                supports |= {site: support for site, support in again.items() if support.write}
        still = [site for site, support in supports.items() if support is DISCARDED]
        supports |= dict.fromkeys(self._passed_on(still), WRITABLE)
        return {
            (name, layer): supports[Site(name, None if layer is None else kinds[layer])]
            for name, entry in COMPONENTS.items()
            for layer in (range(self._shape.n_layers) if entry.layered else [None])
        }

    def _perturbed(
        self, candidates: list[Site], tokens: Int[Tensor, "1 pos"], seed: int = 0
    ) -> tuple[set[Site], dict[Site, Tensor], Tensor]:
        """The candidates that have a hook, the values of those that ran, and the logits of row 0 and of their rows."""
        values: dict[Site, Tensor] = {}
        hooked = {site for site in candidates if self._bridge.get_hook_point(site.hook_name) is not None}
        if any(parameter.device.type == "meta" for parameter in self._bridge.parameters()):
            # accelerate brings offloaded weights for a module's own forward; flagged sites read weights without it.
            hooked -= {site for site in hooked if site.entry.flag}
        for flag in {site.entry.flag for site in hooked if site.entry.flag}:
            try:
                with Attaching(self._installation, WHO, Attachment(WHO, flags=(flag,))):
                    pass
            except NotImplementedError:  # TransformerLens cannot split this attention by head
                hooked -= {site for site in hooked if site.entry.flag == flag}
        hooks = [
            (site, Hook(_perturb, values, site, row, seed))
            for row, site in enumerate(candidates, start=1)
            if site in hooked
        ]
        with self._attached(hooks), GradMode(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TransformerLens warns of discarded edits, which is what the probe tests
            logits = self._bridge(tokens.expand(len(candidates) + 1, -1), **self._arguments)
        # A model of one logit is compared at every token.
        return hooked, values, (logits[:, -1] if self._shape.d_vocab > 1 else logits[..., 0]).float()

    def _passed_on(self, sites: list[Site]) -> list[Site]:
        """The sites whose value, as a hook passed it on, the logits are computed from."""
        live: dict[Site, Tensor] = {}
        if not sites:
            return []
        try:
            hooks = [(site, Hook(_trace, live, site)) for site in sites]
            with self._attached(hooks), GradMode(True), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logits = self._bridge(self._tokens, **self._arguments)
                slopes = torch.autograd.grad(logits.float().sum(), list(live.values()), allow_unused=True)
        except RuntimeError:  # a part without gradients, or weights of inference mode: nothing is proven
            return []
        return [site for site, slope in zip(live, slopes) if slope is not None]

    def _attached(self, hooks: list[tuple[Site, Hook]]) -> Attaching:
        flags = tuple(sorted({site.entry.flag for site, _ in hooks if site.entry.flag}))
        named = tuple((site.hook_name, hook) for site, hook in hooks)
        return Attaching(self._installation, WHO, Attachment(WHO, hooks=named, flags=flags), passes=True)


def _perturb(values: dict[Site, Tensor], site: Site, row: int, seed: int, x: Tensor) -> Tensor:
    """Records the tensor and perturbs one row of it."""
    values[site] = x.detach()
    if site.component == "resid_mid":  # never written at its own hook
        return x
    out = x.clone()
    out[row] = Perturb(site, seed).edit(x[row])
    return out


def _trace(live: dict[Site, Tensor], site: Site, x: Tensor) -> Tensor:
    """Passes on a tensor of its own, of which the logits' graph can be asked."""
    live[site] = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
    return live[site]
