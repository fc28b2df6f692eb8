"""Captures: activations of chosen sites, brought to the host in batches that fit a memory budget."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import BudgetTooSmall, EmptySelection, NonFiniteActivation, UnknownName, unknown
from tv_lens.intervention import Intervention
from tv_lens.kinds import checks_methods
from tv_lens.model.capture_file import NAME, CaptureWriter, MappedValues, missing, opened
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.passes import in_batches, needs_whole_batch, prompts_at_once
from tv_lens.site import ModelShape, Site

Name = TypeVar("Name")  # of a tensor


@checks_methods
class Capture(Mapping[Site, Tensor]):
    """Activations keyed by `Site`: float32 on the host, `batch (pos) *axes`, finite, and 0 where a prompt has no token.

    `token_mask(site)` says where a prompt has one.

    Attributes:
        tokens: the right-padded prompts on which they were read.
        peak_bytes: an estimate of the bytes that one batch took for its pass and captures, beside the weights.
        last_logits: the logits after each prompt's last token, where the passes were run to their end for them.

    Example:
        >>> import tv_lens as tv
        >>> model = tv.circuits.truth.induction(n=2).model
        >>> found = model.capture(["A B C A", "B C B"], tv.sites("resid_post", layer=(0, 2)), pos=-1)
        >>> found
        Capture(2 sites: resid_post[0]@-1, resid_post[2]@-1; TokenBatch(2 prompts of 3-4 tokens); 0.0 MiB)
        >>> found["resid_post[2]"].shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        values: dict[Site, Tensor] | MappedValues,
        tokens: TokenBatch,
        peak_bytes: int,
        last_logits: Float[Tensor, "batch d_vocab"] | None = None,
    ):
        self._values, self.tokens, self.peak_bytes, self.last_logits = values, tokens, peak_bytes, last_logits

    def __getitem__(self, site: Site | str) -> Float[Tensor, "batch *axes"]:
        return self._values[self._key(site)]

    def _key(self, site: Site | str) -> Site:
        """The captured site that an address stands for, which may leave its position out."""
        site = Site.parse(site)
        if site in self._values:
            return site
        without_position = [known for known in self._values if known.at(None) == site]
        if len(without_position) == 1:
            return without_position[0]
        raise unknown("captured site", str(site), self._values)

    def __contains__(self, site: object) -> bool:
        try:
            self._key(site)  # type: ignore[arg-type]
        except UnknownName:
            return False
        return True

    def __iter__(self) -> Iterator[Site]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def token_mask(self, site: Site | str) -> Bool[Tensor, "batch *ones"]:
        """Where a site's values belong to a token of their prompt; it broadcasts to them.

        Example:
            >>> held = model.capture(["a b", "a"], "resid_post[1]")  # doctest: +SKIP
            >>> held["resid_post[1]"][held.token_mask("resid_post[1]")[..., 0]].mean(0)  # doctest: +SKIP
        """
        value, site = self[site], self._key(site)
        if site.pos is not None:
            return torch.ones((len(value), *(1,) * (value.ndim - 1)), dtype=torch.bool, device="cpu")
        return ~missing(self.tokens, site, value)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the capture to one safetensors file, whole or not at all, and returns its path.

        Where it does not fit in memory, `model.capture(..., store=folder)` writes the same file batch by batch.
        """
        writer = CaptureWriter(Path(path), self.tokens, self.peak_bytes)
        try:
            writer.put(slice(0, len(self.tokens)), self._values, len(self.tokens))
            return writer.finish()
        finally:
            writer.discard()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Capture:
        """The capture that `save`, or `model.capture(..., store=folder)`, wrote; numbers are read when they are used.

        Changing them in place changes memory, not the file.

        Args:
            path: the file, or the folder that store= named.

        Raises:
            FormatError: the file is damaged, or the folder holds no whole capture; of a site, when it is first used.
        """
        with opened(path) as (values, tokens, labels):
            return cls(values, tokens, labels["peak_bytes"])

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Capture:
        """What `load` returns, under the name that it had in version 0.1."""
        return cls.load(folder)

    @property
    def nbytes(self) -> int:
        if isinstance(self._values, MappedValues):
            return self._values.nbytes
        return sum(value.numel() * value.element_size() for value in self._values.values())

    def __repr__(self) -> str:
        sites = [str(site) for site in self._values]
        shown = ", ".join(sites if len(sites) <= 4 else [*sites[:2], "...", sites[-1]])
        return f"Capture({len(sites)} sites: {shown}; {self.tokens!r}; {self.nbytes / 2**20:.1f} MiB)"


def bytes_per_prompt(shape: ModelShape, width: int, n_logits: int = 1, itemsize: int = 4, captured: int = 0) -> int:
    """How many bytes one prompt takes in a pass beside the weights: an estimate from the largest tensors at one time.

    Of one layer: the stream and its normed copy with attention's and the MLP's inputs and outputs, the gated neurons,
    the scores and the pattern in float32; of the whole pass: the logits that are wanted, and what is captured.
    """
    stream = width * (10 * shape.d_model + 4 * shape.d_mlp) * itemsize
    attention = 3 * shape.n_heads * width * width * 4
    return stream + attention + n_logits * shape.d_vocab * 8 + captured


def prompts_per_batch(budget: int, per_prompt: int, what: str) -> int:
    """How many prompts a memory budget holds at once.

    Raises:
        BudgetTooSmall: it does not hold one; says the smallest that does.
    """
    if budget < per_prompt:
        raise BudgetTooSmall(
            f"The memory budget does not hold one prompt of {what}.",
            got=f"{budget:,} bytes",
            allowed=f"at least {per_prompt:,} bytes",
            do="raise memory_budget=, or use shorter prompts.",
        )
    return budget // per_prompt


def prompts_per_pass(model: HookedBridge, width: int, n_logits: int, budget: int) -> int:
    """How many prompts of `width` tokens the budget holds; no more than one pass can use to run faster."""
    needed = bytes_per_prompt(model.shape, width, n_logits, model.dtype.itemsize)
    return min(prompts_per_batch(budget, needed, f"{width} tokens"), prompts_at_once(model, width))


def batch_size(
    model: HookedBridge, n: int, width: int, per_prompt: int, edits: Sequence[Intervention], budget: int
) -> tuple[int, str | None]:
    """How many of `n` prompts to run at once, and the label of an edit that needs all of them in one batch.

    Args:
        model: the model that runs.
        n: how many prompts there are.
        width: the longest one's tokens.
        per_prompt: bytes of one prompt, its pass with all that is kept of it.
        edits: all that act on the pass.
        budget: bytes for one batch.

    Raises:
        BudgetTooSmall: the budget does not hold one prompt, or not all that must stay together.
    """
    fitting = min(n, prompts_per_batch(budget, per_prompt, f"{width} tokens"))
    together = needs_whole_batch(edits, n)
    if together is not None and fitting < n:
        raise BudgetTooSmall(
            f"{together} needs all prompts in one batch, and the memory budget splits them.",
            got=f"{budget:,} bytes",
            allowed=f"at least {n * per_prompt:,} bytes",
            do="raise memory_budget=, or write a value computed before.",
        )
    # an edit may hold a value for each prompt of the batch
    return fitting if edits else min(fitting, prompts_at_once(model, width)), together


def captured(
    model: HookedBridge,
    tokens: TokenBatch,
    sites: Sequence[Site],
    budget: int,
    store: Path | None = None,
    allow_nonfinite: bool = False,
    last_logits: bool = False,
) -> Capture:
    """The sites' activations on every prompt, run in as many batches as the budget requires.

    Args:
        model: the model that runs.
        tokens: the prompts.
        sites: what to read.
        budget: bytes for activations and captures of one batch.
        store: a folder that takes the numbers batch by batch.
        allow_nonfinite: keeps NaN and infinities.
        last_logits: also the logits after each prompt's last token, of the same passes; then there may be no site.

    Raises:
        NonFiniteActivation: an activation is NaN or infinite, and that is not allowed.
    """
    sites = list(dict.fromkeys(sites))
    if not sites and not last_logits:
        raise EmptySelection("No site was asked for.", do='name them: tv.sites("resid_post")')
    floats = sum(floats_of(site, tokens.width, model.shape) for site in sites)
    per_prompt = bytes_per_prompt(model.shape, tokens.width, 1, model.dtype.itemsize, 4 * floats)
    around = model.registry.edits_around()
    size, together = batch_size(model, len(tokens), tokens.width, per_prompt, around, budget)
    peak = min(len(tokens), budget // per_prompt) * per_prompt
    stop = None if last_logits else _stop(sites)
    work = partial(_read, model, tokens, sites, stop, allow_nonfinite)
    batches = in_batches(model, len(tokens), size, tokens.width, work, who="model.capture", together=together)
    if store is None:
        values, logits = _in_memory(batches, len(tokens), last_logits)
        return Capture(values, tokens.to("cpu"), peak, logits)
    writer = CaptureWriter(store / NAME, tokens, peak)
    try:
        for rows, (by_site, _) in batches:
            writer.put(rows, by_site, len(tokens))
        return Capture.load(writer.finish())
    finally:
        writer.discard()


def _in_memory(
    batches: Iterator[tuple[slice, tuple[dict[Site, Tensor], Tensor | None]]], n: int, last_logits: bool
) -> tuple[dict[Site, Tensor], Tensor | None]:
    """The values of all batches in memory, one tensor per site, and the last logits if they are wanted."""
    values: dict[Site, Tensor] = {}
    logits: list[Tensor] = []
    for rows, (by_site, after_last) in batches:
        for site in list(by_site):
            part = by_site.pop(site)
            if site not in values:
                values[site] = torch.empty((n, *part.shape[1:]), dtype=torch.float32, device="cpu")
            values[site][rows] = part
        if last_logits and after_last is not None:
            logits.append(after_last[:, 0].cpu())
    return values, torch.cat(logits) if logits else None


def _stop(sites: Sequence[Site]) -> int | None:
    """The last layer that must run; None where the pass goes to its end."""
    layers = [site.layer for site in sites]
    if any(site.component == "final_norm" for site in sites):
        return None
    return max(layers) if None not in layers else (0 if all(site.component == "embed" for site in sites) else None)


def _read(
    model: HookedBridge, tokens: TokenBatch, sites: Sequence[Site], stop: int | None, allow_nonfinite: bool, rows: slice
) -> tuple[dict[Site, Tensor], Tensor | None]:
    """The sites' values on some of the prompts, on the host, and the last logits of a pass that ran to its end."""
    # Parts can only be cut to their own width if every site names its positions; otherwise they stack at full width.
    placed = all(site.pos is not None and "key_pos" not in site.entry.axes for site in sites)
    batch = tokens.select(rows) if placed else tokens.rows_at(rows)
    logits, attachment = model.forward(
        batch, reads=sites, logits_at=batch.last[:, None], stop_after=stop, who="model.capture"
    )
    values, padded = {}, batch.is_padded
    for site in sites:
        value = attachment.values.pop(site).float()
        if site.pos is None and padded:
            value = value.masked_fill(missing(batch, site, value), 0.0)
        if not allow_nonfinite and site.component == "scores":  # a key that is hidden has the lowest number there is
            value = torch.where(value == -torch.inf, torch.finfo(model.dtype).min, value)
        values[site] = value
    if any(value.device != torch.device("cpu") for value in values.values()):
        values = on_host(values)
    if not allow_nonfinite:
        for site, value in values.items():
            refuse_nonfinite(value, site, model.dtype, rows.start)
    return values, logits


def on_host(values: dict[Name, Tensor]) -> dict[Name, Tensor]:
    """The tensors on the host, by one copy from each device that holds some: every copy waits for the device."""
    by_device: dict[torch.device, list[Name]] = {}
    for name, value in values.items():
        by_device.setdefault(value.device, []).append(name)
    copied: dict[Name, Tensor] = {}
    for device, names in by_device.items():
        if device == torch.device("cpu"):
            continue
        sizes = [values[name].numel() for name in names]
        parts = torch.cat([values[name].flatten() for name in names]).cpu().split(sizes)
        copied |= {name: part.view(values[name].shape) for name, part in zip(names, parts)}
    return {name: copied.get(name, value) for name, value in values.items()}


def refuse_nonfinite(value: Float[Tensor, "batch *axes"], site: Site, dtype: torch.dtype, first: int = 0) -> None:
    """Raises `NonFiniteActivation` if an activation is NaN or infinite; `first` is the number of its first prompt."""
    if bool(torch.isfinite(value).all()):
        return
    broken = ~torch.isfinite(value).flatten(1)
    prompt = int(broken.any(1).nonzero()[0])
    kind = str(dtype).removeprefix("torch.")
    raise NonFiniteActivation(
        f"The activation at {site} is NaN or infinite.",
        got=f"{int(broken.sum())} of {broken.numel()} numbers, first in prompt {first + prompt}",
        allowed=f"finite numbers; {kind} holds up to {torch.finfo(dtype).max:.6g}",
        do="load the model in float32 or bfloat16, look at what is attached to it, or read it as it is: "
        "model.capture(..., allow_nonfinite=True).",
    )


def floats_of(site: Site, width: int, shape: ModelShape) -> int:
    """How many numbers a site holds on one prompt of `width` tokens."""
    per_position = 1
    for axis in site.entry.axes:
        if axis in ("batch", site.entry.position_axis) or (site.head is not None and axis == site.entry.head_axis):
            continue
        per_position *= width if axis == "key_pos" else shape.size(axis) or 1
    return per_position * (width if site.pos is None else len(site.positions))
