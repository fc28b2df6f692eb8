"""What tests of rows share: prompts, rows that edit them, and both engines side by side."""

from __future__ import annotations

import torch

import tiny
import tv_lens as tv
from tv_lens.batch import TokenBatch
from tv_lens.intervention import Replace
from tv_lens.rows import trial
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import COMPONENTS, Site

WIDTH = 12  # beyond the sliding windows of six tokens of the tiny Mistral and Gemma-2


def ids(seed: int, n: int = 3, width: int = WIDTH) -> torch.Tensor:
    return torch.randint(3, tiny.VOCAB, (n, width), generator=torch.Generator().manual_seed(seed))


def writable(model: tv.HookedModel) -> list[Site]:
    sites = [
        Site(name, layer)
        for name, entry in COMPONENTS.items()
        for layer in (range(model.n_layers) if entry.layered else [None])
    ]
    return [s for s in sites if model.registry.support(s).write and s.component not in trial.WHOLE_PASSES]


def two_logits(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return logits[:, 5] - logits[:, 7]


def both(model, base, rows, readout=two_logits, **options):
    found = {engine: run_rows(model, base, rows, readout, engine=engine, **options) for engine in ("rows", "passes")}
    assert found["rows"].provenance["engine"] == "rows" and found["passes"].provenance["engine"] == "passes"
    return found["rows"].values, found["passes"].values


def replacing_rows(model, base_batch, source_ids, places) -> list[Row]:
    sites = writable(model)
    held = model.capture(source_ids, sites)
    return [
        Row(i, (PlacedEdit(Replace(site, held[site][i][list(place)]), place),))
        for site in sites
        for place in places
        for i in range(len(base_batch))
    ]


LENGTHS = (9, 5, 9, 7)


def batch() -> TokenBatch:
    drawn = torch.randint(3, tiny.VOCAB, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    return TokenBatch.from_lists([row[:length].tolist() for row, length in zip(drawn, LENGTHS)])


def zeroing(layers=3) -> list[Row]:
    return [
        Row(i, (PlacedEdit(tv.Zero(Site("mlp_out", layer)), (at,)),))
        for layer in range(layers)
        for i, length in enumerate(LENGTHS)
        for at in (length - 1, 2)
    ]
