"""What neighbours may name: the task, its group, or the task among those of its group; and what chance gives."""

from __future__ import annotations

import numpy as np

from tv_lens.lab.family import Family

TASK, GROUP, WITHIN = LEVELS = ("task", "group", "within")


def chances(family: Family) -> dict[str, float]:
    """Decodability without any information, the mean over tasks, by level."""
    sizes = [family.groups.count(group) for group in family.groups]
    return {
        TASK: 1 / len(sizes),
        GROUP: float(np.mean(sizes)) / len(sizes),
        WITHIN: float(np.mean([1 / size for size in sizes])),
    }
