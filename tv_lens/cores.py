"""How many cores this process really has: what it may run on, and what a container's quota leaves of that.

PyTorch starts a thread for every core that it sees. In a container with a quota it sees more than it is given: the
threads then wait for one another, and a pass takes many times as long. The library never sets the number of threads,
which belongs to the program around it; `tv-lens` does, at its start.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

BY_HAND = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
PARAMETERS_A_THREAD = 4_000_000  # a guess that was not measured: with fewer for each, threads mostly wait


def cores() -> int:
    """The cores that this process has: by affinity, by a control group's quota, and at least one."""
    affinity = getattr(os, "sched_getaffinity", None)
    known = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    share = quota()
    return max(1, known if share is None else min(known, int(share)))


def quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """How many cores' time the control groups of this process allow; None without a limit.

    Args:
        root: where control groups are mounted.
        own: the file that names those of this process.
    """
    limits = []
    for line in _text(own).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            limits += [_limit(folder / "cpu.max") for folder in _and_above(root, path)]
        elif "cpu" in controllers.split(","):
            for mount in (root / "cpu", root / controllers):
                limits += [_old_limit(folder) for folder in _and_above(mount, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def set_by_hand() -> str | None:
    """The variable by which somebody set the number of threads; None if none is set."""
    return next((name for name in BY_HAND if os.environ.get(name)), None)


def threads_for(n_parameters: int) -> int:
    """How many threads make passes of a model of this size fast: the cores, or fewer for a small one."""
    return min(cores(), max(1, n_parameters // PARAMETERS_A_THREAD))


def warn_of_threads() -> None:
    """Warns, once in a process, where PyTorch has more threads than this process has cores."""
    threads, available = torch.get_num_threads(), cores()
    if threads <= available or _warned:
        return
    _warned.append(True)
    warnings.warn(
        f"PyTorch runs {threads} threads and this process has {available} "
        f"{'core' if available == 1 else 'cores'}, so that threads wait for one another and everything is slow; "
        f"torch.set_num_threads({available}), or OMP_NUM_THREADS={available} before Python starts.",
        stacklevel=3,
    )


_warned: list[bool] = []


def _and_above(mount: Path, path: str) -> list[Path]:
    """The folder of a control group and of those around it; a container may see its own as the root."""
    folder = mount / path.strip("/")
    return [one for one in (folder, *folder.parents) if one == mount or mount in one.parents]


def _limit(file: Path) -> float | None:
    words = _text(file).split()
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _old_limit(folder: Path) -> float | None:
    share, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
    return int(share) / int(period) if period and share and int(share) > 0 else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
