"""Captures: activations of chosen sites, brought to the host in batches that fit a memory budget."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import BudgetTooSmall, EmptySelection, FormatError, NonFiniteActivation, UnknownName, unknown
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.passes import in_batches, needs_whole_batch, prompts_at_once
from tv_lens.site import ModelShape, Site
from tv_lens.storage.atomic import atomic_write, flush, plain_errors

CONTENTS = "capture.json"


class Capture(Mapping[Site, Tensor]):
    """Activations keyed by `Site`: float32 on the host, `batch (pos) *axes`, finite, and 0 where a prompt has no token.

    `token_mask(site)` says where a prompt has one.

    Attributes:
        tokens: the right-padded prompts on which they were read.
        peak_bytes: an estimate of the bytes that one batch took for its pass and captures, beside the weights.
    """

    def __init__(self, values: dict[Site, Tensor], tokens: TokenBatch, peak_bytes: int):
        self._values, self.tokens, self.peak_bytes = values, tokens, peak_bytes

    def __getitem__(self, site: Site | str) -> Float[Tensor, "batch *axes"]:
        site = Site.parse(site)
        if site in self._values:
            return self._values[site]
        without_position = [known for known in self._values if known.at(None) == site]
        if len(without_position) == 1:
            return self._values[without_position[0]]
        raise unknown("captured site", str(site), self._values)

    def __contains__(self, site: object) -> bool:
        try:
            self[site]  # type: ignore[index]
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
        value = self[site]
        site = next(known for known, held in self._values.items() if held is value)
        if site.pos is not None:
            return torch.ones((len(value), *(1,) * (value.ndim - 1)), dtype=torch.bool, device="cpu")
        return ~_missing(self.tokens, site, value)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Capture:
        """The capture that `model.capture(..., store=folder)` wrote; numbers are read from disk when they are used.

        Raises:
            FormatError: the folder holds no whole capture.
        """
        folder = Path(folder)
        try:
            contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
            tokens = TokenBatch(
                torch.tensor(contents["ids"], dtype=torch.long, device="cpu"),
                torch.tensor(contents["mask"], dtype=torch.bool, device="cpu"),
            )
            marked = contents.get("no_token") == 0  # version 0.1 wrote NaN there: read so, the files stay as they are
            values = {}
            for site in map(Site.parse, contents["sites"]):
                file = np.load(folder / f"{site}.npy", mmap_mode="r+" if marked else "c")
                values[site] = torch.from_numpy(file)
                if not marked and site.pos is None and tokens.is_padded:
                    values[site].masked_fill_(_missing(tokens, site, values[site]), 0.0)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(
                "This folder holds no whole capture.",
                got=f"{folder}: {error}",
                do="capture again: one that was stopped leaves no contents.",
            ) from error
        return cls(values, tokens, contents["peak_bytes"])

    @property
    def nbytes(self) -> int:
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


def too_small(label: str, budget: int, needed: int) -> BudgetTooSmall:
    """The error about an edit of all prompts, which the budget splits."""
    return BudgetTooSmall(
        f"{label} needs all prompts in one batch, and the memory budget splits them.",
        got=f"{budget:,} bytes",
        allowed=f"at least {needed:,} bytes",
        do="raise memory_budget=, or write a value computed before.",
    )


def captured(
    model: HookedBridge,
    tokens: TokenBatch,
    sites: Sequence[Site],
    budget: int,
    store: Path | None = None,
    allow_nonfinite: bool = False,
) -> Capture:
    """The sites' activations on every prompt, run in as many batches as the budget requires.

    Raises:
        NonFiniteActivation: an activation is NaN or infinite, and that is not allowed.
    """
    sites = list(dict.fromkeys(sites))
    if not sites:
        raise EmptySelection("No site was asked for.", do='name them: tv.sites("resid_post")')
    floats = sum(floats_of(site, tokens.width, model.shape) for site in sites)
    per_prompt = bytes_per_prompt(model.shape, tokens.width, 1, model.dtype.itemsize, 4 * floats)
    size = min(len(tokens), prompts_per_batch(budget, per_prompt, f"{tokens.width} tokens"))
    around = model.registry.edits_around()
    together = needs_whole_batch(around, len(tokens))
    if together is not None and size < len(tokens):
        raise too_small(together, budget, len(tokens) * per_prompt)
    fitting = size
    if not around:  # an edit may hold a value for each prompt of the batch
        size = min(size, prompts_at_once(model, tokens.width))
    values: dict[Site, Tensor] = {}
    work = partial(_read, model, tokens, sites, _stop(sites), allow_nonfinite)
    for rows, by_site in in_batches(
        model, len(tokens), size, tokens.width, work, who="model.capture", together=together
    ):
        for site in sites:
            part = by_site.pop(site)
            if site not in values:
                values[site] = _table(store, site, (len(tokens), *part.shape[1:]))
            values[site][rows] = part
    capture = Capture(values, tokens.to("cpu"), fitting * per_prompt)
    if store is not None:
        _close(store, capture)
    return capture


def _table(store: Path | None, site: Site, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor for a site's values on every prompt: in memory, or in a file of the folder."""
    if store is None:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    with plain_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        (store / CONTENTS).unlink(missing_ok=True)  # written again at the end, when every file is whole
        file = np.lib.format.open_memmap(store / f"{site}.npy", mode="w+", dtype=np.float32, shape=shape)
        return torch.from_numpy(file)


def _close(store: Path, capture: Capture) -> None:
    """Flushes the files to the disk, and writes the list of contents last."""
    with plain_errors(store):
        for site in capture:
            flush(store / f"{site}.npy")
        ids, mask = capture.tokens.ids.tolist(), capture.tokens.mask.int().tolist()
        contents = {
            "sites": [str(site) for site in capture],
            "ids": ids,
            "mask": mask,
            "no_token": 0,
            "peak_bytes": capture.peak_bytes,
        }
        atomic_write(store / CONTENTS, json.dumps(contents) + "\n")


def _stop(sites: Sequence[Site]) -> int | None:
    """The last layer that must run; None where the pass goes to its end."""
    layers = [site.layer for site in sites]
    if any(site.component == "final_norm" for site in sites):
        return None
    return max(layers) if None not in layers else (0 if all(site.component == "embed" for site in sites) else None)


def _read(
    model: HookedBridge, tokens: TokenBatch, sites: Sequence[Site], stop: int | None, allow_nonfinite: bool, rows: slice
) -> dict[Site, Tensor]:
    """The sites' values on some of the prompts, on the host."""
    # Parts can only be cut to their own width if every site names its positions; otherwise they stack at full width.
    placed = all(site.pos is not None and "key_pos" not in site.entry.axes for site in sites)
    batch = tokens.select(rows) if placed else tokens.rows_at(rows)
    _, attachment = model.forward(
        batch, reads=sites, logits_at=batch.last[:, None], stop_after=stop, who="model.capture"
    )
    values = {}
    for site in sites:
        value = attachment.values.pop(site).float()
        if site.pos is None and batch.is_padded:
            value = value.masked_fill(_missing(batch, site, value), 0.0)
        if not allow_nonfinite:
            if site.component == "scores":  # a key that is hidden has the lowest number there is
                value = torch.where(value == -torch.inf, torch.finfo(model.dtype).min, value)
            refuse_nonfinite(value, site, model.dtype, rows.start)
        values[site] = value.cpu()
    return values


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


def _missing(batch: TokenBatch, site: Site, value: Tensor) -> Tensor:
    """Where a captured tensor stands for no token: its position axis, broadcastable to the whole."""
    axis = site.entry.axes.index(site.entry.position_axis) if site.head is None else 1
    shape = [len(batch), *(batch.width if i == axis else 1 for i in range(1, value.ndim))]
    return ~batch.mask.view(shape).to(value.device)


def floats_of(site: Site, width: int, shape: ModelShape) -> int:
    """How many numbers a site holds on one prompt of `width` tokens."""
    per_position = 1
    for axis in site.entry.axes:
        if axis in ("batch", site.entry.position_axis) or (site.head is not None and axis == site.entry.head_axis):
            continue
        per_position *= width if axis == "key_pos" else shape.size(axis) or 1
    return per_position * (width if site.pos is None else len(site.positions))
