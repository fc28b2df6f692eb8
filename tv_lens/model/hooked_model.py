"""A TransformerLens model that is given texts, and the one function that loads it from anywhere.

`HookedModel` adds a tokenizer and the verbs to `HookedBridge`, whose TransformerBridge has raw weights (`.tl`); nothing
is folded or centred. Token batches are padded on the right: under causal attention a real token never sees the tokens
after it, so no mask is needed and a padded prompt computes what it computes alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, PromptError
from tv_lens.intervention import Intervention, as_interventions
from tv_lens.kinds import checks_kinds, checks_methods
from tv_lens.loading import in_memory, weights
from tv_lens.loading.stored_weights import full_name
from tv_lens.model.bridging import bridge_of, check_unbridged, give_tokenizer
from tv_lens.model.capture import Capture, captured
from tv_lens.model.generation import Decoding, Generation, eos_ids, generated
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.installation import Attaching
from tv_lens.model.length_tables import split_tables
from tv_lens.model.load_checks import compare, reference, runs_at_all
from tv_lens.model.logits import logits_of
from tv_lens.model.prompt_tokens import Tokens, having, prompt_tokens
from tv_lens.model.text_ids import special_ids
from tv_lens.model.training_mode import refuse_training_mode
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.site import Site, Sites
from tv_lens.torch_settings import plain_settings

GIB = 2**30


@checks_methods
class HookedModel(HookedBridge):
    """A model whose every tensor can be read and edited by address.

    Args:
        bridge: the TransformerLens model, without folded weights.
        tokenizer: the model's own tokenizer, or None for a model that is only given token ids.
        name: the model's name in figures and files.
        fingerprint: identifies config and weights in everything that is saved.
        memory_budget: bytes that one pass may take for activations and captures, beside the weights.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        tokenizer: Any = None,
        name: str = "",
        fingerprint: str = "",
        memory_budget: int = GIB,
    ):
        split_tables(bridge)
        super().__init__(bridge)
        give_tokenizer(bridge, tokenizer)
        self.tokenizer = tokenizer
        self.name = name
        self._loaded_fingerprint = fingerprint
        self.memory_budget = memory_budget
        self.checked = "unchecked: there was no Hugging Face model to compare with"

    @property
    def full_name(self) -> str:
        """The model's name with what its weights are where a file says it: their maker's name and quantisation."""
        full = full_name(self.tl.original_model)
        return f"{self.name} ({full})" if full else self.name

    @property
    def fingerprint(self) -> str:
        """Identifies config, weights and hooks by hand in everything that is saved; another after each has changed."""
        return self.facts.fingerprint(self._loaded_fingerprint)

    @property
    def prepends_bos(self) -> bool:
        """Whether the model's own tokenizer puts BOS before a text; TransformerLens's default is not inherited."""
        tokenizer = having(self.tokenizer, self.name or self.architecture)
        return special_ids(tokenizer)[0][:1] == [tokenizer.bos_token_id]

    def __repr__(self) -> str:
        s = self.shape
        kv = f" ({s.n_kv_heads} key-value)" if s.n_kv_heads != s.n_heads else ""
        n_parameters = sum(p.numel() for p in {id(p): p for p in self.tl.parameters()}.values())
        bos = "no tokenizer" if self.tokenizer is None else f"BOS {'' if self.prepends_bos else 'not '}prepended"
        full = full_name(self.tl.original_model)
        return (
            f"HookedModel {self.name} ({', '.join(part for part in (full, self.architecture) if part)})\n"
            f"  {s.n_layers} layers, {s.n_heads} heads{kv}, d_model {s.d_model}, d_head {s.d_head}, d_mlp {s.d_mlp}, "
            f"vocabulary {s.d_vocab}, context {s.n_ctx}\n"
            f"  {n_parameters / 1e6:.1f}M parameters, {str(self.dtype).removeprefix('torch.')} on {self.device}; "
            f"{bos}; fingerprint {self.fingerprint or '(none)'}\n"
            f"  {self.checked}"
        )

    def tokens(self, prompts: Tokens) -> TokenBatch:
        """A right-padded batch of tokens on the model's device.

        Args:
            prompts: a text, several texts or a generator of them; prompts of a task, tokenized or not; token ids
                without padding; what a tokenizer returns, ids with their mask; or a `TokenBatch`. Texts get what the
                model's own tokenizer puts before a text (BOS), once, and nothing behind them (no EOS).

        Raises:
            InvalidArgument: prompts of another kind.
            PromptError: an empty prompt, one longer than the model's context, or ids without a mask that begin or end
                with the tokenizer's pad token.
        """
        batch = prompt_tokens(prompts, self.tokenizer, self.name or self.architecture)
        if batch.is_padded and bool((batch.first > 0).any()):
            batch = TokenBatch.from_lists(batch.rows())
        known = batch.ids[batch.mask]
        if int(known.min()) < 0 or int(known.max()) >= self.n_ids:
            raise PromptError(
                "A token id is not in the model's vocabulary.",
                got=f"{int(known.min())} to {int(known.max())}",
                allowed=f"0 to {self.n_ids - 1}",
                do="use the model's own tokenizer.",
            )
        if batch.width > self.shape.n_ctx:
            raise PromptError(
                "A prompt is longer than the model's context.",
                got=f"{batch.width} tokens",
                allowed=f"at most {self.shape.n_ctx}",
                do="use fewer demonstrations, or shorter inputs.",
            )
        return batch.to(self.device)

    # ---- running ------------------------------------------------------------------------------------------------

    def run(
        self,
        prompts: Tokens,
        interventions: Intervention | Sequence[Intervention] = (),
        logits: Literal["last", "all"] = "last",
        allow_nonfinite: bool = False,
        memory_budget: int | None = None,
    ) -> Float[Tensor, "batch d_vocab"] | Float[Tensor, "batch pos d_vocab"]:
        """The model's logits, float32: after each prompt's last real token, or after every token.

        The prompts run in batches that fit the memory budget.

        Args:
            prompts: texts or tokens.
            interventions: edits of this run.
            logits: "last" or "all".
            allow_nonfinite: keeps NaN and plus infinity, which are refused otherwise.
            memory_budget: bytes for activations and logits of one batch; the model's if None.

        Raises:
            SiteNotReached: an intervention did not run in this pass.
            NonFiniteActivation: a logit is NaN or plus infinity; names the first prompt.
            BudgetTooSmall: the memory budget does not hold one prompt, or not all prompts of an edit that needs them
                in one batch.
        """
        if logits not in ("last", "all"):
            raise InvalidArgument("logits= says which positions are wanted.", got=repr(logits), allowed="'last', 'all'")
        batch, edits = self.tokens(prompts), as_interventions(interventions)
        budget = self.memory_budget if memory_budget is None else memory_budget
        return logits_of(self, batch, edits, logits == "last", allow_nonfinite, budget)

    @verb
    def generate(
        self,
        prompts: Tokens,
        edits: Intervention | Sequence[Intervention] = (),
        *,
        max_new_tokens: int = 20,
        every_step: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        stop_at_eos: bool = True,
        use_cache: bool = True,
        memory_budget: int | None = None,
    ) -> Generation:
        """What the model writes after each prompt, by greedy decoding, while edits stay in place.

        A prompt is continued as if it were alone. Positions count within the prompt, whatever is written after it: 0 is
        its first token, -1 its last. An edit without a position acts on new tokens, too.

        Args:
            prompts: texts or tokens.
            edits: in place while the model writes.
            max_new_tokens: how many tokens are written at most.
            every_step: edits at pos=-1 act on every new token, too (steering), not only on the prompt's last token.
            temperature: 0 takes the likeliest token; above, tokens are drawn, each prompt's from its own generator.
            seed: of these draws.
            stop_at_eos: a text ends with the end-of-sequence token.
            use_cache: keep keys and values, so that each step reads one token. The tokens are the same without; where
                edits or the model do not allow it, whole texts are read, and `provenance["cache_why_not"]` says why.
            memory_budget: bytes for one batch; the model's if None.

        Raises:
            PromptError: a prompt with what is written after it is longer than the model's context.
            InvalidArgument: edits whose meaning would change from step to step.

        Example:
            >>> model.generate("The capital of France is", max_new_tokens=2).texts  # doctest: +SKIP
            [' Paris.']
        """
        batch, parts = self.tokens(prompts), as_interventions(edits)
        eos = eos_ids(self, self.tokenizer) if stop_at_eos else ()
        decoding = Decoding(max_new_tokens, every_step, temperature, seed, eos)
        budget = self.memory_budget if memory_budget is None else memory_budget
        ids, why_not = generated(self, batch, parts, decoding, budget=budget, use_cache=use_cache)
        about = decoding.described() | {
            "edits": [edit.label for edit in parts],
            "cache": why_not is None,
            "cache_why_not": why_not,
            "model": self.full_name,
            "fingerprint": self.fingerprint,
        }
        return Generation(batch.to("cpu"), ids, self.tokenizer, about)

    @renamed_keywords(positions="pos=")
    @checks_kinds
    def capture(
        self,
        prompts: Tokens,
        sites: Sites | Site | str | Sequence[Site | str],
        pos: int | Sequence[int] | None = None,
        memory_budget: int | None = None,
        store: str | Path | None = None,
        allow_nonfinite: bool = False,
    ) -> Capture:
        """The values of chosen sites, on the host in float32, keyed by `Site`; run in batches that fit the budget.

        Args:
            prompts: any number of them.
            sites: a selection, one address or several.
            pos: the position, several, or None for all; for the sites that name no position themselves.
            memory_budget: bytes for activations and captures of one batch; the model's if None.
            store: a folder whose file takes the numbers batch by batch: for more than memory holds.
            allow_nonfinite: keeps NaN and infinities, which are refused otherwise.

        Raises:
            NonFiniteActivation: an activation is NaN or infinite; names the site and the first prompt.
        """
        if isinstance(sites, Sites):
            sites = sites.expand(self.shape)
        wanted = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str)) else sites)]
        where = tuple(pos) if isinstance(pos, Sequence) else pos
        wanted = [site if site.pos is not None or where is None else site.at(where) for site in wanted]
        budget = self.memory_budget if memory_budget is None else memory_budget
        folder = None if store is None else Path(store)
        return captured(self, self.tokens(prompts), wanted, budget, folder, allow_nonfinite)

    def residual_stream(
        self, prompts: Tokens, allow_nonfinite: bool = False
    ) -> Float[Tensor, "layer batch pos d_model"]:
        """The residual stream after every layer (`resid_post`), 0 where a shorter prompt has no token.

        `model.tokens(prompts).mask` says where it has one.

        Args:
            prompts: texts or tokens.
            allow_nonfinite: keeps NaN and infinities, which are refused otherwise.

        Raises:
            NonFiniteActivation: an activation is NaN or infinite; names the layer and the first prompt.
        """
        capture = self.capture(prompts, Sites(("resid_post",)), allow_nonfinite=allow_nonfinite)
        return torch.stack([capture[Site("resid_post", layer)] for layer in range(self.n_layers)])

    def intervene(self, *interventions: Intervention) -> Attaching:
        """A context in which every pass of the model is edited; contexts nest, and the outer one acts first.

        Example:
            >>> with model.intervene(tv.Zero("z[5].h3")):  # doctest: +SKIP
            ...     logits = model.run("The capital of France is")
        """
        return self.registry.attach("model.intervene", as_interventions(interventions), gives=self)


@plain_settings()
@checks_kinds
def load(
    source: str | Path | TransformerBridge | torch.nn.Module | HookedModel,
    *,
    tokenizer: Any = None,
    name: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    memory_budget: int = GIB,
) -> HookedModel:
    """A `HookedModel`, loaded from an embedded model, a folder, a file, a hub name or a model in memory.

    Args:
        source: an embedded model ("smollm2-135m"), a local folder, a .gguf file, a hub name, a Hugging Face model, or
            a TransformerBridge. Only a hub name uses the network. A Hugging Face model is consumed: adapters are merged
            into its weights, and TransformerLens puts its parts in place of the model's own.
        tokenizer: for a Hugging Face model or a bridge, or its name or folder; the model's own otherwise.
        name: the model's name in figures and files; derived from the source if None.
        revision: a branch, tag or commit of a hub name.
        dtype: of the weights: a torch dtype or its name.
        device: where to put it; if None, a GPU where there is one.
        device_map: as accelerate takes it, for models larger than one device.
        trust_remote_code: run model code that comes with the weights.
        memory_budget: bytes one pass may take beside the weights.

    Raises:
        ModelLoadError: the source cannot be loaded, is not causal, or computes something else once it is bridged; says
            what failed and what to do.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> load(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=2, n_head=2)), name="small")
        HookedModel small (GPT2LMHeadModel)...
    """
    began = time.perf_counter()
    if isinstance(source, HookedModel):
        return in_memory.unchanged(source, tokenizer=tokenizer, name=name, revision=revision, device=device)
    tokenizer = in_memory.tokenizer_of(tokenizer)
    if isinstance(source, TransformerBridge):
        tokenizer = tokenizer if tokenizer is not None else getattr(source, "tokenizer", None)
        refuse_training_mode(source)
        mark = weights.fingerprint(source.original_model)
        return HookedModel(source, tokenizer, name or source.cfg.model_name or "bridge", mark, memory_budget)
    in_memory.check_source(source)
    if isinstance(source, torch.nn.Module):
        model, label = source, name
    else:
        place = weights.locate(str(source), revision=revision)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, own = weights.load_from(
            place, dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
        )
        tokenizer, label = own if tokenizer is None else tokenizer, name or place.name
    model, done = in_memory.plain_model(model)
    check_unbridged(model)
    label = label or getattr(model.config, "_name_or_path", "") or type(model).__name__
    mark, given = weights.fingerprint(model), reference(model.eval(), began)
    with runs_at_all(type(model).__name__, next(model.parameters()).dtype):
        loaded = HookedModel(bridge_of(model, label), tokenizer, label, mark, memory_budget)
        loaded.checked = "; ".join([*done, compare(loaded, given)])
    return loaded
