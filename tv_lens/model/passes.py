"""Batches that fit: how many prompts run at once, and what happens when a device is full.

Every pass of the library raises `OutOfMemory` where a device has no room for it, and every loop over prompts that may
be cut anywhere takes its batches from `in_batches`: it continues with half as many, warns, and remembers for the model
how many tokens the device held.
"""

from __future__ import annotations

import functools
import gc
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from tv_lens.batch import TokenBatch
from tv_lens.errors import OutOfMemory, TVLensError
from tv_lens.intervention import Intervention, Stack

T = TypeVar("T")
CPU_TOKENS = 768  # a core's caches hold what a pass of so many keeps alive: benchmarks/decodability.py --at-once 1536
MOST_TOKENS = 8192  # they keep any device busy; more at once would only delay the progress bar


@runtime_checkable
class OnDevice(Protocol):
    """All that batches need to know of a model: its device, and what was found out about it (`Facts`)."""

    facts: Any

    @property
    def device(self) -> torch.device: ...


HELD = "tokens that the device held at once, after it was full"


def tokens_at_once(device: torch.device) -> int:
    """Tokens beyond which a larger batch is no faster."""
    return min(MOST_TOKENS, CPU_TOKENS * torch.get_num_threads()) if device.type == "cpu" else MOST_TOKENS


def prompts_at_once(model: OnDevice, width: int) -> int:
    """How many prompts of `width` tokens to run at once: a larger batch would be no faster. At least one."""
    return max(1, tokens_at_once(model.device) // width)


def in_batches(
    model: OnDevice, n: int, size: int, width: int, work: Callable[[slice], T], *, who: str, together: str | None = None
) -> Iterator[tuple[slice, T]]:
    """Batch after batch: which prompts were run, and what `work` returned for them.

    A batch for which the device has no room is halved, with a warning; so are later ones, of this loop and of the next.
    What `work` returns must not depend on how the prompts are cut into batches.

    Args:
        model: the model that runs.
        n: how many prompts there are.
        size: how many to run at once.
        width: how many tokens the longest prompt has.
        work: runs prompts `rows.start` to `rows.stop`.
        who: the verb that calls, for the warning.
        together: the label of an edit that needs all prompts in one batch, if there is one.

    Raises:
        OutOfMemory: the device has no room for one prompt, or for all of those that must stay together.
    """
    start = 0
    while start < n:
        at_once = size if together else min(size, max(1, model.facts.known(HELD, size * width) // width))
        rows = slice(start, min(start + at_once, n))
        done, result = _tried(work, rows, together)
        if not done:
            half = (rows.stop - rows.start) // 2
            model.facts.note(HELD, half * width)
            warn_batch_halved(
                model, f"{rows.stop - rows.start} prompts of {width} tokens at once", f"{half} at a time", who
            )
            continue
        yield rows, result
        start = rows.stop


def _tried(work: Callable[[slice], T], rows: slice, together: str | None) -> tuple[bool, T | None]:
    try:
        return True, work(rows)
    except OutOfMemory as error:
        if together is not None:
            raise OutOfMemory(
                f"{together} needs all prompts in one batch, and the device has no room for them.",
                got=error.got,
                do="ask for fewer prompts, or write a value computed before.",
            ) from error
        if rows.stop - rows.start == 1:
            raise
    return (
        False,
        None,
    )  # returned outside of the handler: the error keeps every frame of the pass alive, with its tensors


def warn_batch_halved(model: OnDevice, was: str, now: str, who: str) -> None:
    """Frees the memory of a pass that failed, and warns that smaller batches follow."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"{who}: {model.device} had no room for {was}; going on with {now}", stacklevel=2)


def needs_whole_batch(edits: Sequence[Intervention], n: int) -> str | None:
    """The label of the first edit that needs all `n` prompts in one batch; None if there is none."""
    for edit in edits:
        parts = edit.parts if isinstance(edit, Stack) else (edit,)
        if edit.mixes_prompts or any(_has_one_value_per_prompt(part, n) for part in parts):
            return edit.label
    return None


def _has_one_value_per_prompt(edit: Intervention, n: int) -> bool:
    values = (getattr(edit, name, None) for name in ("value", "vector"))
    return n > 1 and any(isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == n for value in values)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device is full; each kind of device has its own words for it."""
    if isinstance(error, TVLensError) or _of_an_edit(error):
        return False
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )


def _of_an_edit(error: BaseException) -> bool:
    """Whether a MemoryError comes out of an edit's own code; torch's own errors about devices are no MemoryError."""
    frames = traceback.walk_tb(error.__traceback__) if isinstance(error, MemoryError) else ()
    return any(isinstance(frame.f_locals.get("self"), Intervention) for frame, _ in frames)


def raises_out_of_memory(run: Callable[..., T]) -> Callable[..., T]:
    """A pass of a model that raises `OutOfMemory` where its device is full."""

    @functools.wraps(run)
    def passing(model: OnDevice, batch: TokenBatch, *arguments: Any, **options: Any) -> T:
        try:
            return run(model, batch, *arguments, **options)
        except Exception as error:
            if not out_of_memory(error):
                raise
            what = "one prompt" if len(batch) == 1 else f"{len(batch)} prompts"
            message = str(error).strip().splitlines() or [type(error).__name__]
            raise OutOfMemory(
                f"{model.device} has no room for a pass over {what} of {batch.width} tokens.",
                got=message[0][:200],
                do="use shorter prompts or fewer sites and positions; a smaller memory_budget= runs fewer at once; "
                "tv.load(..., dtype='bfloat16') or device_map='auto' leaves more room beside the weights.",
            ) from error

    return passing
