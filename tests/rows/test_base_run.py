"""The unedited run: prompts that begin alike branch from one prefill, where that is exact."""

from __future__ import annotations

import torch

import tiny
import tv_lens as tv
from row_cases import both, ids, two_logits
from tv_lens.intervention import Zero
from tv_lens.rows import base_run
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import Site


def test_prompts_that_begin_alike_branch_from_one_prefill(family, tiny_model):
    """Two contexts with three queries each, one prompt alone: rows equal whole passes, and the contexts ran once."""
    model = tiny_model(family)
    contexts, queries = ids(3, n=2, width=20), ids(4, n=3, width=4)
    prompts = [torch.cat([context, query]) for query in queries for context in contexts] + [ids(5, n=1, width=24)[0]]
    base = model.tokens(torch.stack(prompts))
    rows = [
        Row(i, (PlacedEdit(Zero(Site(name, layer)), place),))
        for i in range(7)
        for layer in range(3)
        for name in ("attn_out", "mlp_out")
        for place in ((23,), (21,), (6,), (19, 20))
    ]
    with_rows, with_hooks = both(model, base, rows)
    torch.testing.assert_close(with_rows, with_hooks, atol=1e-5, rtol=0)
    assert base_run.prefix_sharing_is_exact(model)
    assert run_rows(model, base, rows, two_logits).provenance["tokens_shared"] == 2 * 2 * 20
    assert (
        run_rows(model, base.select([0, 1, 6]), [Row(i) for i in range(3)], two_logits).provenance["tokens_shared"] == 0
    )


def test_groups_of_prompts_that_begin_alike():
    long = list(range(20))
    prompts = [[9] * 21, [*long, 1], [8] * 21, [*long, 2], [*long, 3], [7] + [8] * 20]
    assert list(base_run.together(prompts, range(6), 32)) == [[1, 3, 4], [5, 2, 0]]
    assert list(base_run.together(prompts, range(6), 2)) == [[1, 3], [4, 5], [2, 0]]
    assert sorted(prompt for group in base_run.together(prompts, [0, 2, 5], 1) for prompt in group) == [0, 2, 5]


def test_a_model_that_cannot_be_continued_runs_its_prompts_whole(tiny_model, monkeypatch):
    model = tv.load(tiny.hugging_face_model("qwen2", seed=4))
    monkeypatch.setattr(base_run, "_joined", lambda one, two: two)  # the prefix's part of the mask is lost
    assert not base_run.prefix_sharing_is_exact(model)
    base = model.tokens(ids(3, n=1, width=20).repeat(2, 1))
    assert run_rows(model, base, [Row(0), Row(1)], two_logits).provenance["tokens_shared"] == 0
