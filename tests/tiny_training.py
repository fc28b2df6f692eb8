"""Sizes of small measurements over a training."""

from __future__ import annotations

from tv_lens.experiments import EmergenceSize
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, build_network
from tv_lens.lab.family import Family

FAMILY = SparseMixture.disjoint(3, rank=1, points=6)
GROUPED = SparseMixture.overlapping(groups=2, each=2, size=3, rank=2, points=6)
SIZES = dict(n=40, probe_episodes=60, shots=2, k=10, n_label_shuffles=60, map_points=10, seed=0)
SMALL = EmergenceSize(
    "own",
    checkpoints=3,
    n=12,
    probe_episodes=12,
    shots=1,
    k=5,
    n_label_shuffles=10,
    map_points=5,
    patch_episodes=0,
    circuits=0,
)


def untrained(family: Family, seed: int = 0) -> Regressor:
    network = NetworkConfig(dim=family.dim, points=family.points, n_layers=2, n_heads=2, d_model=16)
    return Regressor.of(build_network(network, seed).state_dict(), network, family=family, device="cpu")
