"""Sizes of the small networks on which patches, ablations and circuits are tested."""

from __future__ import annotations

import tv_lens as tv
from tv_lens.lab import NetworkConfig, SparseMixture

FAMILY = SparseMixture.disjoint(3, rank=1, points=4)
CONFIG = NetworkConfig(dim=3, points=4, n_layers=3, n_heads=2, d_model=8, init=0.4)
CHEAP = tv.circuits.EAPIG(steps=2, recheck=0)
FEW = dict(n=6, contexts=10, progress=False)
