"""What is loaded is what was given: the bridged model's logits are held to the Hugging Face model's own.

`reference` runs the Hugging Face model before it is bridged; `compare` runs the bridge on the same tokens afterwards.
Whatever TransformerLens leaves behind when it copies a weight (an adapter, a hook) or does not read from the config (an
attention that is not scaled) shows in the logits, whichever way it was lost. The same passes show that the model is
causal, and that padding on the right changes nothing for the real tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import ModelLoadError, TVLensError
from tv_lens.model.grad_mode import GradMode
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.length_tables import length_switches

MOST_TOKENS = 512  # of a prompt that goes beyond a window or a switch
SECONDS, SHARE = 5.0, 0.1  # what the comparison may take: seconds, or a share of the load where that is more
SHORT, WHOLE = 5, 8  # tokens of the prompts
_ALLOWED = {torch.float64: 1e-5, torch.float32: 3e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far logits may be apart, in units of their spread: sums in another order in each dtype, with room to spare."""
_STOCK = (
    "sdpa",
    "flash",
    "flex",
    "paged",
    "kernels",
)  # attention that computes what "eager" computes, in another order
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")


@dataclass
class Reference:
    """What a Hugging Face model computes before it is bridged.

    Attributes:
        prompts: token ids; the second begins as the first does and ends otherwise, the third is their beginning.
        pair: the logits of the first two, run in one batch with the third, so that sums have the bridge's order.
        alone: the logits of the third, run alone.
        long: token ids of a prompt that goes beyond every window and switch that is short enough, if there is one.
        long_logits: its logits.
        suspects: what the model has that a bridge may lose, in words.
        unchecked: what was not compared, in words.
        seconds: what its passes took.
    """

    prompts: list[list[int]] = field(default_factory=list)
    pair: Tensor = field(default_factory=lambda: torch.empty(0, device="cpu", dtype=torch.float32))
    alone: Tensor = field(default_factory=lambda: torch.empty(0, device="cpu", dtype=torch.float32))
    long: list[int] | None = None
    long_logits: Float[Tensor, "pos d_vocab"] | None = None
    suspects: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    seconds: float = 0.0


def reference(model: torch.nn.Module, began: float) -> Reference:
    """The Hugging Face model's own logits on a few prompts, and whether it is causal.

    Args:
        model: the model before it is bridged, in evaluation mode.
        began: when loading began, by `time.perf_counter`.

    Raises:
        ModelLoadError: earlier logits move with a later token, or logits are not finite.
    """
    found = Reference(suspects=_suspects(model))
    n_ids, most = _sizes(model)
    if any(weight.is_meta for weight in model.parameters()):
        found.unchecked.append("weights that are offloaded would be read once more for it")
        return found
    if n_ids < 2 or most < 2:
        found.unchecked.append("the vocabulary or the context is too small")
        return found
    start = time.perf_counter()
    allowed = max(SECONDS, SHARE * (start - began)) / 3  # the rest is the bridge's, which runs a short prompt twice
    prompts = _prompts(model, n_ids, min(WHOLE, most))
    try:
        _become_eager(model, prompts[-1:])
        alone = _run(model, prompts[-1:])[0]
        if (took := time.perf_counter() - start) > allowed:
            found.unchecked.append(f"it would take {3 * took:.0f} s")
            return found
        pair = _run(model, TokenBatch.from_lists(prompts).ids.tolist())[:2]
    except ModelLoadError:
        raise
    except Exception as error:  # whatever a model raises that is given tokens alone, without images or a decoder's
        found.unchecked.append(f"the Hugging Face model could not be run on token ids ({type(error).__name__})")
        return found
    found.prompts, found.pair, found.alone = prompts, pair, alone
    found.seconds = time.perf_counter() - start
    _check_finite(model, [pair, alone])
    _check_causal(model, found)
    _run_long(model, found, n_ids, most, allowed)
    return found


def compare(model: HookedBridge, found: Reference) -> str:
    """The bridge held to the reference: the outcome in a few words, for `repr(model)`.

    Raises:
        ModelLoadError: the logits differ by more than rounding in the model's dtype, alone or in a padded batch.
    """
    if not found.prompts:
        return f"unchecked: {'; '.join(found.unchecked)}"
    short, n = found.prompts[-1:], len(found.prompts[0])
    alone, (*pair, padded) = _bridged(model, short)[0], _bridged(model, found.prompts)
    gaps = {
        "on a short prompt": _gap(alone, found.alone),
        f"on a batch of prompts of {n} tokens": _gap(torch.stack(pair), found.pair),
        f"on a prompt of {len(short[0])} tokens padded to {n}": _gap(padded, found.alone, most_tokens=True),
    }
    words = "alone and padded"
    if found.long is not None and found.long_logits is not None:
        words = f"alone, padded and at {len(found.long)} tokens"
        gaps[f"on a prompt of {len(found.long)} tokens"] = _gap(_bridged(model, [found.long])[0], found.long_logits)
        if length_switches(model.tl):
            padded = _bridged(model, [found.long, *short])[1]
            where = f"on a prompt of {len(short[0])} tokens padded to {len(found.long)}"
            gaps[where] = _gap(padded, found.alone, most_tokens=True)
    spread = _spread(found.pair)
    for where, gap in gaps.items():
        if not gap <= _allowed(model.dtype) * spread:
            raise _mismatch(model, gap / spread, found, where)
    worst = max(gaps.values())
    parts = [f"logits equal to Hugging Face's to {worst / spread if spread else worst:.0e} of their spread ({words})"]
    return "; ".join([*parts, "causal", *(f"unchecked {what}" for what in found.unchecked)])


@contextmanager
def runs_at_all(architecture: str, dtype: torch.dtype) -> Iterator[None]:
    """Turns what an architecture raises in its first passes through TransformerLens into a `ModelLoadError`."""
    try:
        yield
    except TVLensError:
        raise
    except Exception as error:
        half = dtype not in (torch.float32, torch.float64)
        lines = str(error).strip().splitlines() or ["(no message)"]
        raise ModelLoadError(
            f"TransformerLens could not run this {architecture}.",
            got=f"{type(error).__name__}: {lines[0][:200]}",
            do="load it in float32: tv.load(..., dtype=torch.float32)."
            if half
            else "this configuration of the architecture is not supported by TransformerLens; choose another model.",
        ) from error


# ---- the Hugging Face model -----------------------------------------------------------------------------------------


def _text_config(model: torch.nn.Module) -> Any:
    """The config of what reads tokens: of a model for images and text, the text part."""
    config: Any = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _sizes(model: Any) -> tuple[int, int]:
    """How many token ids a model reads, and how many tokens of context; 0 where it does not say."""
    config = _text_config(model)
    ids = int(getattr(config, "vocab_size", 0) or 0)
    with suppress(AttributeError, NotImplementedError):
        ids = min(ids, int(model.get_input_embeddings().weight.shape[0]))
    lengths = [value for name in _CONTEXT if isinstance(value := getattr(config, name, None), int) and value > 0]
    return ids, min(lengths, default=MOST_TOKENS)


def _prompts(model: torch.nn.Module, n_ids: int, whole: int) -> list[list[int]]:
    """A prompt, one that ends otherwise, and their common beginning."""
    n = min(SHORT, whole - 1)
    first, others = _ordinary(model, n_ids, whole, seed=0), _ordinary(model, n_ids, whole, seed=1)
    ends = [other if other != token else (token + 1) % n_ids for token, other in zip(first[n:], others[n:])]
    return [first, [*first[:n], *ends], first[:n]]


def _ordinary(model: torch.nn.Module, n_ids: int, n: int, seed: int) -> list[int]:
    """Random token ids without those that a config gives a meaning (padding, images), where there are others."""
    named = {**vars(model.config), **vars(_text_config(model))}.items()
    special = {
        value for name, value in named if name.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    drawn = torch.randint(n_ids, (4 * n,), generator=torch.Generator().manual_seed(seed), device="cpu").tolist()
    ordinary = [token for token in drawn if token not in special] or drawn
    return (ordinary * n)[:n]


def _run(model: torch.nn.Module, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "batch pos d_vocab"]:
    """The logits of prompts of one length, on the host."""
    ids = torch.tensor(prompts, dtype=torch.long, device=next(model.parameters()).device)
    with GradMode(False):
        out = model(ids)
    logits = out.logits if hasattr(out, "logits") else out[0]
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise ValueError(f"logits of the shape {list(logits.shape)}")
    return logits.detach().cpu()


def _become_eager(model: Any, prompt: Sequence[Sequence[int]]) -> None:
    """Sets the attention that the bridge will have; one of the user's own stays, and so becomes the reference.

    Raises:
        ModelLoadError: the attention that the model had computes something else.
    """
    had = str(getattr(model.config, "_attn_implementation", None))
    if not had.startswith(_STOCK):
        return
    try:
        before = _run(model, prompt)
    except (ImportError, NotImplementedError, RuntimeError):  # flash attention has no version for a processor
        model.config._attn_implementation = "eager"
        return
    model.config._attn_implementation = "eager"
    gap, spread = _gap(_run(model, prompt), before, most_tokens=True), _spread(before)
    if gap > _allowed(before.dtype) * spread:
        raise ModelLoadError(
            "The model's attention implementation computes something else than the eager one, which hooks need.",
            got=f"{type(model).__name__} with {had!r}: logits differ by {gap / spread:.1e} of their spread",
            do="load it with attn_implementation='eager', and compare it with the numbers that you expect.",
        )


def _run_long(model: torch.nn.Module, found: Reference, n_ids: int, most: int, allowed: float) -> None:
    """Runs a prompt that goes beyond the windows and switches that are short enough, if there is time for it."""
    bounds = [bound for bound in _bounds(model) if bound < most]
    short = [bound for bound in bounds if bound + 4 <= min(MOST_TOKENS, most)]
    if beyond := [bound for bound in bounds if bound not in short]:
        found.unchecked.append(f"beyond {min(beyond)} tokens")
    if not short:
        return
    length = max(short) + 4
    per_token = found.seconds / sum(map(len, found.prompts))
    if found.seconds + per_token * length > allowed:
        found.unchecked.append(f"beyond {min(short)} tokens (it would take {per_token * length:.0f} s)")
        return
    start = time.perf_counter()
    found.long = _ordinary(model, n_ids, length, seed=1)
    found.long_logits = _run(model, [found.long])[0]
    _check_finite(model, [found.long_logits])
    found.seconds += time.perf_counter() - start


def _bounds(model: torch.nn.Module) -> list[int]:
    """The lengths beyond which a model computes otherwise: its windows, chunks and switches of rotary tables."""
    config = _text_config(model)
    names = ("sliding_window", "window_size", "attention_chunk_size", "local_attention", "attention_window_size")
    windows = [getattr(config, name, None) for name in names]
    lengths = [window for window in windows if isinstance(window, int) and not isinstance(window, bool) and window > 0]
    return sorted({*lengths, *length_switches(model)})


def _suspects(model: torch.nn.Module) -> list[str]:
    """What a model has beside its modules and weights: a bridge that copies weights may lose it."""
    hooked = [name for name, part in model.named_modules() if part._forward_hooks or part._forward_pre_hooks]
    made = [name for name, part in model.named_modules() if hasattr(part, "parametrizations")]
    adapted = [name for name, _ in model.named_modules() if "lora_" in name or "adapter" in name.lower()]
    found = [
        f"{what} ({names[0] or 'the model'}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
        for what, names in (("forward hooks", hooked), ("a parametrised weight", made), ("an adapter", adapted))
        if names
    ]
    return found + ["scale_attn_weights=False"] * (getattr(model.config, "scale_attn_weights", True) is False)


def _check_finite(model: torch.nn.Module, logits: Sequence[Tensor]) -> None:
    if not all(bool(each.isfinite().all()) for each in logits):
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        raise ModelLoadError(
            "The model's logits are not finite numbers on a short prompt of random tokens.",
            got=f"{type(model).__name__} in {dtype}; its weights are finite",
            do="load it in another dtype: float16 holds no number beyond 65,504, bfloat16 and float32 do."
            if dtype == "float16"
            else "check the model's config and weights; run it with transformers alone.",
        )


def _check_causal(model: torch.nn.Module, found: Reference) -> None:
    """Raises `ModelLoadError` where logits of tokens before a change differ."""
    n, spread = len(found.alone), _spread(found.pair)
    gap = _gap(found.pair[0, :n], found.pair[1, :n])
    dtype = next(model.parameters()).dtype
    if not gap <= _allowed(dtype) * spread:
        raise ModelLoadError(
            "The model is not causal: its logits at a token change with later tokens.",
            got=f"{type(model).__name__}: by {gap / spread:.1e} of their spread",
            allowed="decoder-only language models, in which a token sees only those before it",
            do="a bidirectional encoder has no next token to predict; choose a causal language model.",
        )


# ---- the comparison -------------------------------------------------------------------------------------------------


def _bridged(model: HookedBridge, prompts: Sequence[list[int]]) -> list[Float[Tensor, "pos d_vocab"]]:
    """The bridge's logits at the real tokens of each prompt, run as one batch."""
    batch = TokenBatch.from_lists(prompts).to(model.device)
    logits: Any = model.forward(batch, who="tv.load: comparison")[0]
    return [row[: len(prompt)].cpu().to(model.dtype) for row, prompt in zip(logits, prompts)]


def _gap(one: Tensor, other: Tensor, most_tokens: bool = False) -> float:
    """How far logits are apart; NaN where one is NaN.

    In single precision it is the largest difference. Values in half precision are noisy, and an expert may be chosen by
    a rounding: there it is the root of the mean square over the vocabulary, at the worst token, or at the median one
    where `most_tokens`, because sums of another shape are compared.
    """
    width = min(one.shape[-1], other.shape[-1])  # TransformerLens may pad the vocabulary
    difference = one[..., :width].double() - other[..., :width].double()
    if one.dtype not in (torch.float16, torch.bfloat16):
        return float(difference.abs().max())
    per_token = difference.pow(2).mean(-1).sqrt()
    return float(per_token.median() if most_tokens else per_token.max())


def _spread(logits: Float[Tensor, "*batch pos d_vocab"]) -> float:
    """The standard deviation of the logits over the vocabulary, or over the tokens where there is one logit."""
    logits = logits.double()
    return float(logits.std(dim=-1).mean() if logits.shape[-1] > 1 else logits.std())


def _allowed(dtype: torch.dtype) -> float:
    return _ALLOWED.get(dtype, _ALLOWED[torch.bfloat16])


def _mismatch(model: HookedBridge, gap: float, found: Reference, where: str) -> ModelLoadError:
    causes = "; ".join(found.suspects)
    return ModelLoadError(
        "The bridged model does not compute what the Hugging Face model computes.",
        got=f"{model.architecture}: logits differ by {gap:.1e} of their spread {where}"
        + (f"; the model has {causes}" if causes else ""),
        allowed=f"{_allowed(model.dtype):.0e} in {str(model.dtype).removeprefix('torch.')}",
        do="TransformerLens copies some weights (the joint query-key-value projection of GPT-2 and GPT-NeoX) and "
        "leaves behind what sits on their module: merge adapters into the weights, remove hooks, make "
        "parametrisations permanent. An option of the config that TransformerLens does not read cannot be loaded "
        "(GPT-2's scale_attn_weights=False).",
    )
