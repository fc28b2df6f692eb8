"""Which rows walk together: entry layers, groups of one start, halves, and the counts that a run reports."""

from __future__ import annotations

import torch

import tiny
from row_cases import WIDTH, ids, two_logits
from tv_lens.intervention import Add, Replace, Zero
from tv_lens.rows import planning
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.planning import _by_start, _entered, _halves, _plan, _Planned
from tv_lens.site import Site


def zeroed(site: Site, *positions: int) -> PlacedEdit:
    return PlacedEdit(Zero(site), positions)


def test_a_row_enters_at_its_first_edited_layer_and_begins_at_its_first_position():
    assert _plan(7, Row(0), 9, 3) == _Planned(7, 2, 8)  # no edit: the last token through the last layer
    assert _plan(0, Row(0, (zeroed(Site("z", 1), 4),)), 9, 3) == _Planned(0, 1, 4)
    two = Row(0, (zeroed(Site("z", 2), 8), zeroed(Site("mlp_out", 1), 5, 6)))
    assert _plan(0, two, 9, 3) == _Planned(0, 1, 5)
    assert _plan(0, Row(0, (zeroed(Site("resid_post", 0), 8),)), 9, 3).entry_layer == 1  # what enters the next one
    assert _plan(0, Row(0, (zeroed(Site("final_norm"), 8),)), 9, 3).entry_layer == 2


def test_an_edit_of_what_leaves_a_layer_is_one_of_what_enters_the_next():
    vector = torch.ones(4)
    moved = _entered(Add(Site("resid_post", 0), vector, 2.0), 3)
    assert moved.site == Site("resid_pre", 1) and moved.scale == 2.0 and moved.vector is vector
    stacked = _entered(Replace(Site("resid_post", 1), vector).then(Add(Site("resid_post", 1), vector)), 3)
    assert {part.site for part in stacked.parts} == {stacked.site} == {Site("resid_pre", 2)}
    for stays in (Zero(Site("resid_post", 2)), Zero(Site("mlp_out", 0))):
        assert _entered(stays, 3) is stays


def test_rows_of_neighbouring_starts_join_until_a_walk_has_enough_work(monkeypatch):
    pairs = [(_Planned(i, 0, start), 0) for i, start in enumerate((3, 0, 3, 1, 1))]
    monkeypatch.setattr(planning, "TOKENS_WORTH_A_WALK", 4)
    groups = list(_by_start(pairs, length=4))
    assert [(start, [planned.row for planned, _ in group]) for start, group in groups] == [
        (0, [1]),
        (1, [3, 4]),
        (3, [0, 2]),
    ]
    monkeypatch.setattr(planning, "TOKENS_WORTH_A_WALK", 100)
    assert [(start, len(group)) for start, group in _by_start(pairs, length=4)] == [(0, 5)]


def test_a_part_is_halved_by_prompts_and_one_prompt_by_rows():
    rows = [_Planned(i, 0, 3) for i in range(5)]
    assert _halves({4: rows[:2], 7: rows[2:3], 9: rows[3:]}) == [{4: rows[:2]}, {7: rows[2:3], 9: rows[3:]}]
    assert _halves({4: rows}) == [{4: rows[:2]}, {4: rows[2:]}]


def test_rows_of_the_last_token_share_one_walk_and_earlier_ones_another(tiny_model):
    model = tiny_model("llama")
    base, last = model.tokens(ids(1)), WIDTH - 1
    alike = [Row(i, (zeroed(Site("z", layer), last),)) for layer in range(tiny.LAYERS) for i in range(3)]
    assert run_rows(model, base, alike, two_logits).provenance["walks"] == 1
    longer = run_rows(model, base, [*alike, Row(0, (zeroed(Site("z", 1), 4),))], two_logits).provenance
    assert (longer["walks"], longer["base_runs"], longer["rows"]) == (2, 1, 10)
    # Prompts with the same rows walk together, the one that has others walks alone.
    assert run_rows(model, base, alike[:-1], two_logits).provenance["walks"] == 2
