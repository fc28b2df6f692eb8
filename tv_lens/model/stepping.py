"""One way to step a model's blocks by hand, and one check of it.

Every engine that runs blocks with other rows, tokens or masks than the model's own pass is a `BlockSteps`: it says what
enters a block, with which arguments, and what becomes of what leaves. Whether an architecture allows that is tried by
`disagreement`: the same numbers, stepped and in whole passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_bridge import HookedBridge

Arguments = dict[str, Any]


class BlockSteps:
    """How each block is run in a pass: a `block_call` of `HookedBridge.forward`.

    A kind of steps overrides what it changes; as it stands, every block runs as in the model's own pass.
    """

    returns: tuple[int | None, ...] = ()
    """What each block returns, as `returned_by` finds it; needed where some blocks do not run."""

    def __call__(self, layer: int, own: Callable[..., Any], x: Tensor, arguments: Arguments) -> Any:
        stream = self.enters(layer, x)
        if stream is None:
            return _as_returned(self.leaves(layer, x, None), self.returns[layer])
        out = own(stream, **self.arguments(layer, stream, arguments))
        if isinstance(out, tuple):
            return (self.leaves(layer, x, out[0]), *out[1:])
        return self.leaves(layer, x, out)

    def enters(self, layer: int, x: Tensor) -> Tensor | None:
        """The residual stream that enters a block, where `x` left the one before; None where the block does not run."""
        return x

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        """The block's other arguments, from those of the model's own pass."""
        return given

    def leaves(self, layer: int, x: Tensor, y: Tensor | None) -> Tensor:
        """What the next block is given, from `x` and the block's own output `y`, None where it did not run."""
        return x if y is None else y


class Recording(BlockSteps):
    """The model's own pass, of which the stream into every block and its arguments are kept.

    Attributes:
        streams: by layer.
        given: the arguments of each block, by layer.
    """

    def __init__(self) -> None:
        self.streams: list[Tensor] = []
        self.given: list[Arguments] = []

    def enters(self, layer: int, x: Tensor) -> Tensor:
        self.streams.append(x)
        return x

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        self.given.append(given)
        return given


class _Returns:
    """Notes the length of the tuple that each block returns, None for a bare tensor."""

    def __init__(self) -> None:
        self.lengths: list[int | None] = []

    def __call__(self, layer: int, own: Callable[..., Any], x: Tensor, arguments: Arguments) -> Any:
        out = own(x, **arguments)
        self.lengths.append(len(out) if isinstance(out, tuple) else None)
        return out


class OneBlock(BlockSteps):
    """Runs one block alone, on a given stream; if its layer is None, no block, so that the stream itself comes out.

    Args:
        stream: what enters the block, and what all others return.
        layer: the block that runs.
        returns: what each block returns.
        mask: the mask that the block is given; the model's own if None.
    """

    def __init__(
        self,
        stream: Float[Tensor, "n pos d_model"],
        layer: int | None,
        returns: tuple[int | None, ...],
        mask: Tensor | None = None,
    ):
        self.stream, self.layer, self.returns, self.mask = stream, layer, returns, mask

    def enters(self, layer: int, x: Tensor) -> Tensor | None:
        return self.stream if layer == self.layer else None

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        return given if self.mask is None else {**given, "attention_mask": self.mask}

    def leaves(self, layer: int, x: Tensor, y: Tensor | None) -> Tensor:
        return self.stream if y is None else y


def returned_by(model: HookedBridge) -> tuple[int | None, ...]:
    """The length of the tuple that each block of a model returns, None for a bare tensor; found once."""
    return model.facts.find("what blocks return", lambda: _returned_by(model))


def _returned_by(model: HookedBridge) -> tuple[int | None, ...]:
    noted = _Returns()
    model.forward(trial_batch(model, 1, 3), block_call=noted, who="stepping: a trial")
    return tuple(noted.lengths)


def _as_returned(x: Tensor, length: int | None) -> Any:
    return x if length is None else (x, *(None,) * (length - 1))


# ---- masks ----------------------------------------------------------------------------------------------------------


def with_hidden(mask: Tensor, hidden: Tensor) -> Tensor:
    """A mask, additive or boolean, under which these keys are hidden, too."""
    return mask & ~hidden if mask.dtype == torch.bool else mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def additive_mask(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask under which exactly these keys are hidden."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)


def shown(mask: Tensor) -> Tensor:
    """Which keys an additive or boolean mask shows."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def future(length: int, device: torch.device) -> Tensor:
    """The keys that lie in each query's future, `query key`."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


# ---- the check ------------------------------------------------------------------------------------------------------


def trial_ids(model: HookedBridge, n: int, length: int, seed: int = 0) -> Int[Tensor, "n length"]:
    """Random token ids to try a model on; without the first three, which are special in many vocabularies."""
    first = 3 if model.n_ids > 6 else 0
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randint(first, model.n_ids, (n, length), generator=generator, device="cpu")


def trial_batch(model: HookedBridge, n: int, length: int) -> TokenBatch:
    """Random prompts of one length to try a model on."""
    ids = trial_ids(model, n, length)
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)).to(model.device)


def tolerance(dtype: torch.dtype) -> float:
    """How far apart two ways of computing one tensor may come out, as a share of its largest value.

    In float32 the ways that agree do so to about 1e-6 and those that do not are wrong by more than 1e-2; in half
    precision one rounding is 4e-3 and a block makes a dozen of them.
    """
    return 1e-4 if dtype in (torch.float32, torch.float64) else 0.05


def is_close(computed: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways of computing one tensor agree, for a model of this dtype."""
    if computed.shape != expected.shape:
        return False
    gap = (computed.to(expected.device) - expected).abs().max()
    return bool(gap <= tolerance(dtype) * expected.abs().max().clamp(min=1e-6))


def disagreement(
    model: HookedBridge, stepped: Callable[[], Mapping[Any, Tensor]], whole: Mapping[Any, Tensor]
) -> str | None:
    """Why stepping a model's blocks does not give what whole passes give; None where it does.

    Args:
        model: the model.
        stepped: computes some tensors by stepping blocks.
        whole: the same tensors by whole passes.
    """
    try:
        computed = stepped()
    except Exception as error:  # whatever an unknown architecture raises when its blocks are run one by one
        message = str(error).strip().splitlines() or [""]
        return f"this architecture cannot be stepped block by block ({type(error).__name__}: {message[0][:200]})"
    if computed.keys() != whole.keys():
        return f"blocks stepped by hand have other tensors ({sorted(map(str, computed.keys() ^ whole.keys()))[0]})"
    for name, expected in whole.items():
        if computed[name].shape != expected.shape:
            return f"blocks stepped by hand give {name} the shape {list(computed[name].shape)}"
        if not is_close(computed[name], expected, model.dtype):
            gap = float((computed[name].to(expected.device) - expected).abs().max() / expected.abs().max())
            return f"blocks stepped by hand and whole passes differ by {gap:.1e} of the largest value ({name})"
    return None


def own_mask(model: HookedBridge) -> str | None:
    """Which layer's attention hides more than the future by a buffer of its own; None if none does.

    Whoever steps blocks hides tokens by the mask that a block is given. A window that is cut out of a buffer counts
    the tokens beside one another as if they were later ones, and makes a difference only where it is shorter than they
    are: no short trial would find it.
    """
    for layer, block in enumerate(model.tl.blocks):
        for name, buffer in block.named_buffers():
            square = buffer.ndim >= 2 and buffer.shape[-1] == buffer.shape[-2] > 1 and buffer.dtype == torch.bool
            if square and not torch.equal(buffer, torch.ones_like(buffer).tril()):
                return f"layer {layer} of this architecture masks by a buffer of its own ({name.split('.')[-1]})"
    return None
