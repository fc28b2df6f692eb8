"""Sweeps inside the file of a larger result: their arrays under their names, and their labels beside the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_file import ARRAYS, HEADER, labelled, parts_of


def packed(sweeps: Mapping[str, Sweep]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of all sweeps, named such as `controls/values`, and the labels of each."""
    numbers: dict[str, np.ndarray] = {}
    labels: dict[str, Any] = {}
    for name, sweep in sweeps.items():
        header, arrays = ({key: getattr(sweep, key) for key in keys} for keys in (HEADER, ARRAYS))
        own, labels[name] = parts_of(header, arrays)
        numbers |= {f"{name}/{key}": array for key, array in own.items()}
    return numbers, labels


def unpacked(numbers: Mapping[str, Tensor], labels: Mapping[str, Any], names: Iterable[str]) -> dict[str, Sweep]:
    """Those of the sweeps that `packed` described which have these names."""
    sweeps = {}
    for name in names:
        about = labels[name]
        fields: dict[str, Any] = {key: about[key] for key in HEADER}
        for key, axes in about["arrays"].items():
            fields[key] = labelled(numbers[f"{name}/{key}"].numpy(), axes)
        sweeps[name] = Sweep(**fields)
    return sweeps
