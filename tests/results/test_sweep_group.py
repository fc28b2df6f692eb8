"""Sweeps inside the file of a larger result come back as they were."""

from __future__ import annotations

import json

import numpy as np
import torch

from toy_sweeps import make
from tv_lens.results import sweep_group


def test_several_sweeps_come_back_under_their_names():
    sweeps = {"one": make(), "two/deep": make(seed=1).recovery(), "three": make().sel(layer=1)}
    numbers, labels = sweep_group.packed(sweeps)
    assert {"one/values", "one/clean", "two/deep/denominator"} <= numbers.keys()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in numbers.items()}
    again = sweep_group.unpacked(tensors, json.loads(json.dumps(labels)), ["one", "two/deep"])
    assert list(again) == ["one", "two/deep"]
    for name, sweep in again.items():
        assert sweep.interval().equals(sweeps[name].interval()) and sweep.provenance == sweeps[name].provenance
