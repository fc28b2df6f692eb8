"""What tests of hooked models share: tokens, what each family supports, edits, and the state of a bridge."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import tiny
from tv_lens.intervention import Intervention, Replace
from tv_lens.site import COMPONENTS, Site

BATCH, POS = 5, 7  # no other axis of the tiny models has these lengths, so a swapped axis shows
TOKENS = (torch.arange(BATCH * POS).reshape(BATCH, POS) * 17 + 3) % tiny.VOCAB
PARALLEL = {"gpt_neox", "gptj", "phi"}  # attention and MLP side by side: no stream between them
ORIGINAL_ATTENTION = {"gptj", "opt"}  # attention runs in the original code: what is written there is discarded


def all_sites(layers=range(tiny.LAYERS)) -> list[Site]:
    return [Site(name, layer) for name, entry in COMPONENTS.items() for layer in (layers if entry.layered else [None])]


def expected_word(family: str, component: str) -> str:
    """What TransformerLens 4.3 lets one do, by its source: written down here, not asked of the registry."""
    if component == "resid_mid" and family in PARALLEL:
        return "absent"
    if family in ORIGINAL_ATTENTION and component in ("result", "scores"):
        return "absent"
    if family in ORIGINAL_ATTENTION and component == "pattern":
        return "read"
    return "write"


def sites_with(family: str, *words: str) -> list[Site]:
    return [site for site in all_sites() if expected_word(family, site.component) in words]


def state_of(bridge) -> dict:
    """Everything that an attachment could leave behind: hooks of both kinds, flags, contexts."""
    return {
        "hooks": {name: len(handles) for name, handles in bridge.list_hooks().items()},
        "torch hooks": sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in bridge.modules()
        ),
        "flags": {name: value for name, value in vars(bridge.cfg).items() if name.startswith("use_")},
        "context": bridge.context_level,
        "training": bridge.training,
        "gradients": torch.is_grad_enabled(),
    }


@dataclass(frozen=True, eq=False, repr=False)
class Call(Intervention):
    """Runs a function while the model runs, and edits nothing."""

    function: object = None

    def edit(self, x):
        self.function(x)
        return x


@dataclass(frozen=True, eq=False, repr=False)
class Made(Intervention):
    """What a function makes of the site."""

    function: object = None

    def edit(self, x):
        return self.function(x)


@dataclass(frozen=True, eq=False, repr=False)
class Noise(Intervention):
    """Adds noise of unit size, where there is a live number."""

    seed: int = 0

    def edit(self, x):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(self.seed))
        return torch.where(x.abs() < 1e30, x + noise, x)


@contextmanager
def passing_over(model, layer):
    object.__setattr__(model.tl.blocks[layer], "forward", lambda hidden_states, *args, **kwargs: hidden_states)
    try:
        yield
    finally:
        object.__delattr__(model.tl.blocks[layer], "forward")


def open_and_run(model, tokens, edits):
    with model.intervene(*edits):
        model.run(tokens)


ROWS = [[5, 9, 11, 4, 60, 8], [7, 3], [80, 41, 2, 77], [33]]  # prompts of lengths 6, 2, 4, 1


@cache
def words(bos: bool = False) -> hf.PreTrainedTokenizerFast:
    """Every word is a token; `<s>` is BOS, and comes by itself only if `bos`."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, tiny.VOCAB)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def close(a, b, scale=None):
    """Equal to float32 rounding: 2e-6 of the largest number, a few units in the last place after three layers."""
    scale = float((b if scale is None else scale).abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=2e-6 * scale)


def lengths(family: str) -> dict[str, int]:
    """The lengths of the axes, from the Hugging Face config alone."""
    config = tiny.FAMILIES[family]()
    heads = config.num_attention_heads
    width = next(
        (w for w in (getattr(config, n, None) for n in ("intermediate_size", "ffn_dim", "n_inner")) if w), None
    )
    return {
        "batch": BATCH,
        "pos": POS,
        "query_pos": POS,
        "key_pos": POS,
        "d_model": config.hidden_size,
        "head": heads,
        "kv_head": getattr(config, "num_key_value_heads", None) or heads,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "d_mlp": width or 4 * config.hidden_size,
    }


def overflowing() -> list[Intervention]:
    """Edits that float16 can hold and after which it cannot hold the stream: the layer adds two large numbers."""
    large = torch.full((tiny.D_MODEL,), 6e4)
    return [Replace("resid_post[0]@-1", large), Replace("attn_out[1]@-1", large)]
