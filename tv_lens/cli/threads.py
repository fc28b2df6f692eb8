"""How many threads a command computes with, and why: said in one line, before it computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tv_lens.cli.loader import loaded


def use_cores(say: Callable[[str], None], model: Any = None, threads: int | None = None) -> None:
    """Lets PyTorch run as many threads as this process has cores and the model can use, unless that is set by hand.

    Args:
        say: prints the line.
        model: a `HookedModel`, whose size says how many threads are worth it; all cores if None.
        threads: the number that was asked for.
    """
    import torch

    cores = loaded("tv_lens.cores")
    if model is not None and model.device.type != "cpu":
        return
    if (command := click.get_current_context(silent=True)) is not None:  # a program may call a command as a function
        command.call_on_close(partial(torch.set_num_threads, torch.get_num_threads()))
    if threads is not None:
        torch.set_num_threads(threads)
        why = "--threads"
    elif (name := cores.set_by_hand()) is not None:
        why = f"set by {name}"
    else:
        n_parameters = None if model is None else sum(p.numel() for p in model.tl.original_model.parameters())
        torch.set_num_threads(cores.cores() if n_parameters is None else cores.threads_for(n_parameters))
        why = f"of {cores.cores()} cores; OMP_NUM_THREADS sets another number"
    n = torch.get_num_threads()
    say(f"{n} {'thread' if n == 1 else 'threads'} ({why})")
