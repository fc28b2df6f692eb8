"""Rows that begin alike in one sequence: each token once, and what every row's own run holds."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from tv_lens.rows import packing
from tv_lens.rows.packing import packed, read_pack
from tv_lens.site import Site
from tv_lens.task_vectors.activation_table import read_rows

BASE = torch.randint(3, tiny.VOCAB, (40,), generator=torch.Generator().manual_seed(1)).tolist()
# A row and beginnings of it, branches after 5, 9 and 14 of its tokens, a second tree, and a row that shares nothing.
ROWS = [
    tuple(row)
    for row in (
        BASE[:20],
        BASE[:9] + BASE[20:30],
        BASE[:14] + BASE[30:33],
        BASE[:5],
        BASE[3:18],
        BASE[3:12] + BASE[:3],
        [BASE[7], *BASE[:8]],
    )
]


def alone(model, row, sites):
    return model.capture(torch.tensor([row]), sites, pos=-1)


def test_a_pack_holds_what_each_row_holds_alone(family, tiny_model):
    """On every family, beyond the sliding windows of six tokens, at every layer and inside a block."""
    model = tiny_model(family)
    assert packing.packing_is_exact(model)
    sites = [Site(name, layer) for name in ("resid_post", "z", "mlp_out") for layer in range(model.n_layers)]
    together, single = packed(ROWS, model.shape)
    assert [len(pack.rows) for pack in together] == [6] and single == [6]
    found = read_pack(model, together[0], sites)
    for place, number in enumerate(together[0].rows):
        for site, held in alone(model, ROWS[number], sites).items():
            torch.testing.assert_close(found[site.at(None)][place], held[0], atol=1e-5, rtol=1e-5)
    assert not model.registry.attached


def test_each_token_stands_once(tiny_model):
    (pack,), _ = packed(ROWS, tiny_model("llama").shape)
    assert len(pack) == 20 + 10 + 3 + 15 + 3  # the first row with its two branches, the second tree with its one
    seen = pack.seen()
    for number, end in zip(pack.rows, pack.ends):
        leading = seen[end].nonzero().flatten()
        assert torch.tensor(pack.ids)[leading].tolist() == list(ROWS[number])
        assert torch.tensor(pack.positions)[leading].tolist() == list(range(len(ROWS[number])))


def test_packs_keep_to_their_size_and_leave_out_what_saves_nothing(tiny_model):
    shape = tiny_model("llama").shape
    assert packed([(1, 2), (3, 4), (5,)], shape) == ([], [0, 1, 2])
    many = [(*BASE[:12], i) for i in range(40)]
    together, single = packed(many, shape, most=24)
    assert max(map(len, together)) <= 24
    assert sorted([*single, *(number for pack in together for number in pack.rows)]) == list(range(40))


def test_a_model_that_masks_by_itself_runs_every_row_alone():
    model = tv.load(tiny.hugging_face_model("gpt_neo"), name="gpt_neo")
    assert not packing.packing_is_exact(model)
    site = Site("resid_post", 2)
    for row, value in zip(ROWS, read_rows(model, ROWS, [site])[site]):
        torch.testing.assert_close(value, alone(model, row, [site])[site][0], atol=1e-5, rtol=1e-5)


def test_a_model_whose_packs_would_differ_runs_every_row_alone(monkeypatch):
    """The trial is not decoration: with a mask under which branches see one another, it says no."""
    model = tv.load(tiny.hugging_face_model("llama"), name="leaky")
    monkeypatch.setattr(packing.Pack, "seen", lambda pack: torch.ones(len(pack), len(pack), dtype=torch.bool).tril())
    assert not packing.packing_is_exact(model)


def test_under_an_open_edit_every_row_runs_alone(tiny_model):
    model, site = tiny_model("llama"), Site("resid_post", 2)
    edit = tv.Add("resid_pre[1]@-1", torch.ones(32))
    with model.intervene(edit):
        found = read_rows(model, ROWS, [site])[site]
    for row, value in zip(ROWS, found):
        with model.intervene(edit):
            torch.testing.assert_close(value, alone(model, row, [site])[site][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_half_precision_packs(dtype):
    model = tv.load(tiny.hugging_face_model("llama").to(dtype), name="half")
    assert packing.packing_is_exact(model)
