"""Maps by UMAP: neighbourhoods are kept, the seed decides, and a missing library is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tv_lens.errors import InvalidArgument
from tv_lens.task_vectors.neighbours import leave_one_out
from tv_lens.task_vectors.umap_map import UMAP


def test_a_missing_library_is_said_whole(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InvalidArgument) as error:
        UMAP().check_installed()
    assert str(error.value) == (
        "Drawing a map by UMAP needs the library umap-learn.\n"
        "  got:     method=tv.methods.UMAP()\n"
        "  allowed: method=tv.methods.PCA(), which needs nothing more\n"
        "  do:      pip install 'tv_lens[umap]'"
    )


def test_its_options_are_checked_and_reported():
    assert UMAP(7, 0.5).settings == {"n_neighbors": 7, "min_dist": 0.5} and UMAP(7).least_points == 8
    for wrong in (dict(n_neighbors=1), dict(min_dist=-0.1), dict(min_dist=float("nan"))):
        with pytest.raises(InvalidArgument, match="two neighbours or more"):
            UMAP(**wrong)


@pytest.mark.slow
def test_clusters_stay_together():
    pytest.importorskip("umap")
    clusters = np.random.default_rng(0).normal(size=(90, 8)) + 8 * np.eye(3, 8).repeat(30, axis=0)
    points, explained = UMAP().plane(clusters, seed=0)
    labels = torch.arange(3).repeat_interleave(30)
    assert torch.equal(leave_one_out(torch.from_numpy(points), labels), labels) and explained is None
