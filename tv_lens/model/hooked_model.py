"""A TransformerLens model with its registry, and the one function that loads it from anywhere.

`HookedModel` has a TransformerBridge with raw weights (`.tl`); nothing is folded or centred. Token batches are
padded on the right: under causal attention a real token never sees what stands after it, so no mask is needed and
a padded row computes what it computes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, ModelLoadError, PromptError, SiteAbsent
from tv_lens.intervention import Intervention, as_interventions
from tv_lens.loading import weights
from tv_lens.model.capture import Capture, captured
from tv_lens.model.editing import Edit
from tv_lens.model.passes import in_batches, needs_company, telling_when_full
from tv_lens.model.registry import Attachment, HookRegistry
from tv_lens.model.rerouting import BlockCall
from tv_lens.site import ModelShape, Site, Sites

Tokens = "str | Sequence[str] | Int[Tensor, '*prompts pos'] | TokenBatch"
GIB = 2**30


class HookedModel:
    """A model whose every tensor can be read and edited by address.

    Args:
        bridge: the TransformerLens model, without folded weights.
        tokenizer: the model's own tokenizer, or None for a model that is only given token ids.
        name: what it is called in figures and files.
        fingerprint: identifies config and weights in everything saved.
        memory_budget: bytes that one pass may take for activations and captures, beside the weights.

    Example:
        >>> model = load("smollm2-135m")  # doctest: +SKIP
        >>> model.residual_stream("The capital of France is").shape  # doctest: +SKIP
        torch.Size([30, 1, 5, 576])
    """

    def __init__(self, bridge: TransformerBridge, tokenizer: Any = None, name: str = "", fingerprint: str = "",
                 memory_budget: int = GIB):  # fmt: skip
        if getattr(bridge, "compatibility_mode", False):
            raise ModelLoadError("The TransformerBridge is in compatibility mode: its weights are folded and centred.",
                                 do="load the model anew without enable_compatibility_mode(); tv_lens works on raw weights.")  # fmt: skip
        self.tl = bridge
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.memory_budget = memory_budget
        self.shape = _shape_of(bridge)
        self.registry = HookRegistry(bridge, self.shape)
        self.registry.probe(self.n_ids)

    # ---- what it is ---------------------------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        return self.shape.n_layers

    @property
    def architecture(self) -> str:
        return self.registry.architecture

    @property
    def device(self) -> torch.device:
        return self.registry.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.tl.parameters()).dtype

    @property
    def prepends_bos(self) -> bool:
        """Whether the model's own tokenizer puts BOS before a text; TransformerLens's default is not inherited."""
        ids = self._tokenizer("x").input_ids
        return bool(ids) and ids[0] == self._tokenizer.bos_token_id

    def __repr__(self) -> str:
        s = self.shape
        kv = f" ({s.n_kv_heads} key-value)" if s.n_kv_heads != s.n_heads else ""
        n_parameters = sum(p.numel() for p in {id(p): p for p in self.tl.parameters()}.values())
        bos = "no tokenizer" if self.tokenizer is None else f"BOS {'' if self.prepends_bos else 'not '}prepended"
        return (
            f"HookedModel {self.name} ({self.architecture})\n"
            f"  {s.n_layers} layers, {s.n_heads} heads{kv}, d_model {s.d_model}, d_head {s.d_head}, d_mlp {s.d_mlp}, "
            f"vocabulary {s.d_vocab}, context {s.n_ctx}\n"
            f"  {n_parameters / 1e6:.1f}M parameters, {str(self.dtype).removeprefix('torch.')} on {self.device}; "
            f"{bos}; fingerprint {self.fingerprint or '(none)'}"
        )

    @property
    def n_ids(self) -> int:
        """How many token ids there are: the vocabulary, where what is read and what is predicted are the same things."""
        return self.shape.d_vocab

    # ---- tokens -------------------------------------------------------------------------------------------------

    @property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise PromptError("This model has no tokenizer.", got=self.name or self.architecture,
                              do="pass token ids, or tv.load(model, tokenizer=...).")  # fmt: skip
        return self.tokenizer

    def tokens(self, prompts: Tokens) -> TokenBatch:
        """A right-padded batch of tokens on the model's device.

        Args:
            prompts: a text, several texts (tokenized as the model's own tokenizer does by default), token ids
                without padding, or a `TokenBatch`.

        Raises:
            PromptError: an empty prompt, or one longer than the model's context.
        """
        if isinstance(prompts, str):
            prompts = [prompts]
        if isinstance(prompts, Tensor):
            ids = prompts[None] if prompts.ndim == 1 else prompts
            batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
        elif isinstance(prompts, TokenBatch):
            batch = prompts
        else:
            if not all(isinstance(text, str) for text in prompts):
                raise InvalidArgument("Prompts are texts or token ids.", got=repr(type(prompts).__name__),
                                      allowed="str, list of str, Int[Tensor, 'batch pos'], TokenBatch")  # fmt: skip
            batch = TokenBatch.from_lists([self._tokenizer(text).input_ids for text in prompts])
        if batch.is_padded and bool((batch.first > 0).any()):
            batch = TokenBatch.from_lists(batch.rows())
        known = batch.ids[batch.mask]
        if int(known.min()) < 0 or int(known.max()) >= self.n_ids:
            raise PromptError("A token id is not in the model's vocabulary.", got=f"{int(known.min())} to {int(known.max())}",
                              allowed=f"0 to {self.n_ids - 1}", do="use the model's own tokenizer.")  # fmt: skip
        if batch.width > self.shape.n_ctx:
            raise PromptError("A prompt is longer than the model's context.", got=f"{batch.width} tokens",
                              allowed=f"at most {self.shape.n_ctx}", do="use fewer demonstrations.")  # fmt: skip
        return batch.to(self.device)

    # ---- running ------------------------------------------------------------------------------------------------

    def run(
        self, prompts: Tokens, interventions: Intervention | Sequence[Intervention] = (),
        logits: Literal["last", "all"] = "last",
    ) -> Float[Tensor, "batch d_vocab"] | Float[Tensor, "batch pos d_vocab"]:  # fmt: skip
        """The model's logits, float32: after each prompt's last real token, or after every token.

        Raises:
            SiteNotReached: an intervention did not run in this pass.
        """
        if logits not in ("last", "all"):
            raise InvalidArgument("logits= says which positions are wanted.", got=repr(logits), allowed="'last', 'all'")
        batch, edits = self.tokens(prompts), as_interventions(interventions)
        company = needs_company([*edits, *self.registry.edits_around()], len(batch))
        work = partial(_run, self, batch, edits, logits == "last")
        parts = in_batches(self, len(batch), len(batch), batch.width, work, who="model.run", together=company)
        found = [part for _, part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)  # logits are large: the usual single part is not copied

    @telling_when_full
    def forward(
        self, batch: TokenBatch, edits: Sequence[Edit | Intervention] = (), reads: Sequence[Site] = (),
        logits_at: Int[Tensor, "batch n"] | None = None, stop_after: int | None = None, who: str = "model.forward",
        logit_columns: Int[Tensor, "batch n k"] | None = None, block_call: BlockCall | None = None,
        **model_arguments: Any,
    ) -> tuple[Float[Tensor, "batch n d_vocab"] | None, Attachment]:  # fmt: skip
        """One hooked pass: the logits, and the attachment with what was read.

        Args:
            batch: right-padded tokens.
            edits: interventions, or ones placed on rows and columns of this batch.
            reads: what to capture.
            logits_at: columns of each row whose logits are wanted; every position if None.
            stop_after: the last layer to run; no logits are computed then.
            who: the verb that asks.
            logit_columns: the only tokens whose logits are wanted at each of `logits_at`.
            block_call: runs the blocks in the model's place.
            model_arguments: passed to the model as they are (a mask, position ids, a cache).
        """
        gathers = logits_at is not None and self.registry.can_gather
        with self.registry.attach(
            who, edits, reads, logits_at if gathers else None, logit_columns, block_call
        ) as attachment:
            if stop_after is not None:
                stop_after = max(stop_after, self.registry.last_edited_layer())
                if stop_after < self.n_layers - 1:
                    model_arguments["stop_at_layer"] = stop_after + 1
            for active in self.registry.attached:
                active.start_pass()
            model_arguments = {**self.registry.pass_arguments, **model_arguments}
            with self.registry.batch(batch), torch.no_grad():
                out = self.tl(batch.ids, **model_arguments)
            for active in self.registry.attached:
                active.check_reached()
        if stop_after is not None:
            return None, attachment
        if logits_at is not None and (not gathers or out.shape[1] != logits_at.shape[1]):  # or the hook was discarded
            out = out[torch.arange(len(batch), device=out.device)[:, None], logits_at.to(out.device)]
        return out.float(), attachment

    @telling_when_full
    def gradients(
        self, batch: TokenBatch, sites: Sequence[Site], score: Callable[[Tensor], Float[Tensor, "batch"]],
        edits: Sequence[Edit | Intervention] = (), reads: Sequence[Site] = (), at: Site | None = None,
        who: str = "model.gradients",
    ) -> tuple[Float[Tensor, "batch"], dict[Site, Tensor], Attachment]:  # fmt: skip
        """Each prompt's score, its gradient at whole tensors, and the attachment with what was read.

        No weight takes part in the graph, which begins at the first of the sites.

        Args:
            batch: right-padded tokens.
            sites: where gradients are wanted. That at `resid_mid` is taken at `attn_out`, which is the same and exact.
            score: the logits after each prompt's last token, or what `at` holds, to one number a prompt; prompts must
                not mix in it.
            edits: interventions, as `forward` takes them.
            reads: what to capture in the same pass.
            at: a tensor to score instead of the logits; the pass stops after its layer.
            who: the verb that asks.
        """
        wanted = {site: Site("attn_out", site.layer) if site.component == "resid_mid" else site.tensor for site in sites}
        traced = dict.fromkeys([*wanted.values(), *([] if at is None else [at.tensor])])
        gathers = at is None and self.registry.can_gather
        arguments = dict(self.registry.pass_arguments)
        if at is not None and (stop := max([at, *wanted], key=lambda site: site.layer or 0).layer) < self.n_layers - 1:
            arguments["stop_at_layer"] = stop + 1
        with self.registry.attach(
            who, edits, reads, batch.last[:, None] if gathers else None, traced=tuple(traced)
        ) as attachment, _frozen(self.tl), torch.enable_grad():  # fmt: skip
            for active in self.registry.attached:
                active.start_pass()
            with self.registry.batch(batch):
                out = self.tl(batch.ids, **arguments)
            for active in self.registry.attached:
                active.check_reached()
            if at is not None:
                out = attachment.live[at.tensor]
            elif out.shape[1] != 1:
                out = out[torch.arange(len(batch), device=out.device), batch.last.to(out.device)]
            else:
                out = out[:, 0]
            values = score(out.float())
            kept = [attachment.live[site] for site in wanted.values()]
            found = torch.autograd.grad(values.sum(), kept, allow_unused=True)
        attachment.live.clear()
        gradients = {site: torch.zeros_like(x) if g is None else g for site, x, g in zip(wanted, kept, found)}
        return values.detach(), gradients, attachment

    def capture(
        self, prompts: Tokens, sites: Sites | Site | str | Sequence[Site | str],
        positions: int | Sequence[int] | None = None, memory_budget: int | None = None,
        store: str | Path | None = None,
    ) -> Capture:  # fmt: skip
        """What chosen sites hold, on the host in float32, keyed by `Site`; run in batches that fit the budget.

        Args:
            prompts: any number of them.
            sites: a selection, an address or several; never everything by accident.
            positions: where, for the sites that name no position: an int, several, or None for all.
            memory_budget: bytes for activations and captures of one batch; the model's if None.
            store: a folder that takes the numbers, one file a site, as batches end: for more than memory holds.
        """
        if isinstance(sites, Sites):
            sites = sites.expand(self.shape)
        wanted = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str)) else sites)]
        where = tuple(positions) if isinstance(positions, Sequence) else positions
        wanted = [site if site.pos is not None or where is None else site.at(where) for site in wanted]
        budget = self.memory_budget if memory_budget is None else memory_budget
        return captured(self, self.tokens(prompts), wanted, budget, None if store is None else Path(store))

    def residual_stream(self, prompts: Tokens) -> Float[Tensor, "layer batch pos d_model"]:
        """The residual stream after every layer (`resid_post`), NaN where a shorter prompt has no token."""
        found = self.capture(prompts, Sites(("resid_post",)))
        return torch.stack([found[Site("resid_post", layer)] for layer in range(self.n_layers)])

    @contextmanager
    def intervene(self, *interventions: Intervention) -> Iterator[HookedModel]:
        """A context in which every pass of the model is edited; contexts nest, and the outer one acts first.

        Example:
            >>> with model.intervene(tv.Zero("z[5].h3")):  # doctest: +SKIP
            ...     logits = model.run("The capital of France is")
        """
        with self.registry.attach("model.intervene", as_interventions(interventions)):
            yield self


def _run(model: HookedModel, batch: TokenBatch, edits: Sequence[Intervention], last: bool, rows: slice) -> Tensor:
    """The logits of some rows of a batch, which keeps its width."""
    part = batch.rows_at(rows)
    out, _ = model.forward(part, edits, logits_at=part.last[:, None] if last else None, who="model.run")
    return out[:, 0] if last else out


@contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """A context in which no weight asks for a gradient, so that no pass keeps what only weights' gradients need."""
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _shape_of(bridge: TransformerBridge) -> ModelShape:
    if not hasattr(bridge, "blocks"):
        raise SiteAbsent("This architecture has no stack of blocks in TransformerLens.",
                         got=type(bridge.original_model).__name__, do="use a decoder-only language model.")  # fmt: skip
    cfg = bridge.cfg
    return ModelShape(
        n_layers=len(bridge.blocks), n_heads=cfg.n_heads, n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_model=cfg.d_model, d_head=cfg.d_head, d_mlp=cfg.d_mlp or 0, d_vocab=cfg.d_vocab, n_ctx=cfg.n_ctx,
    )  # fmt: skip


def load(
    source: str | Path | TransformerBridge | torch.nn.Module | HookedModel, *, tokenizer: Any = None,
    name: str | None = None, revision: str | None = None, dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None, device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False, memory_budget: int = GIB,
) -> HookedModel:  # fmt: skip
    """A `HookedModel` from whatever holds one.

    Args:
        source: an embedded model ("smollm2-135m"), a local folder, a .gguf file, a hub name, a Hugging Face model, or
            a TransformerBridge. Only a hub name touches the network.
        tokenizer: for a Hugging Face model or a bridge; its own otherwise. A Hugging Face model is consumed:
            TransformerLens puts its parts in place of the model's own.
        name: what to call it; derived from the source otherwise.
        revision: a branch, tag or commit of a hub name.
        dtype: of the weights: a torch dtype or its name.
        device: where to put it; a GPU if there is one.
        device_map: as accelerate takes it, for models larger than one device.
        trust_remote_code: run model code that comes with the weights.
        memory_budget: bytes one pass may take beside the weights.

    Raises:
        ModelLoadError: with what failed and what to do.
    """
    if isinstance(source, HookedModel):
        return source
    if isinstance(source, TransformerBridge):
        own = tokenizer if tokenizer is not None else getattr(source, "tokenizer", None)
        mark = weights.fingerprint(source.original_model)
        return HookedModel(source, own, name or source.cfg.model_name or "bridge", mark, memory_budget)
    if isinstance(source, torch.nn.Module):
        _check_unbridged(source)
        model = source
        label = name or getattr(source.config, "_name_or_path", "") or type(source).__name__
    else:
        place = weights.locate(str(source), revision=revision)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, own = weights.load_from(
            place, dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
        )
        tokenizer, label = tokenizer or own, name or place.name
    mark = weights.fingerprint(model)
    return HookedModel(bridge_of(model, label), tokenizer, label, mark, memory_budget)


def _check_unbridged(model: torch.nn.Module) -> None:
    if not hasattr(model, "config"):
        raise ModelLoadError("This module is not a Hugging Face model.", got=type(model).__name__,
                             allowed="a transformers model with its config, or a TransformerBridge")  # fmt: skip
    if any(name.endswith("_original_component") for name, _ in model.named_modules()):
        # A second bridge would take the parts out of the first one, which then misses hooks.
        raise ModelLoadError("This Hugging Face model is inside a TransformerBridge already.", got=type(model).__name__,
                             do="use the HookedModel made of it, or load the Hugging Face model anew.")  # fmt: skip


def bridge_of(model: torch.nn.Module, label: str) -> TransformerBridge:
    """The TransformerBridge of a Hugging Face model, which is consumed: its parts are put in place of the model's own.

    Raises:
        ModelLoadError: TransformerLens does not know the architecture.
    """
    architecture = type(model).__name__
    model.eval()
    model.config._attn_implementation = "eager"
    try:
        return build_bridge_from_module(model, architecture, hf_config=model.config, model_name=label)
    except Exception as error:
        raise ModelLoadError("TransformerLens could not bridge this model.", got=f"{architecture}: {error}",
                             do="see transformer_lens.supported_models for the architectures it knows.") from error  # fmt: skip
