"""Which rows walk together: groups of one start, halves, and the counts that a run reports."""

from __future__ import annotations

import tiny
from row_cases import WIDTH, ids, two_logits
from tv_lens.intervention import Zero
from tv_lens.rows import planning
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.entering import Planned
from tv_lens.rows.planning import _by_start, _halves
from tv_lens.site import Site


def zeroed(site: Site, *positions: int) -> PlacedEdit:
    return PlacedEdit(Zero(site), positions)


def test_rows_of_neighbouring_starts_join_until_a_walk_has_enough_work(monkeypatch):
    pairs = [(Planned(i, 0, start), 0) for i, start in enumerate((3, 0, 3, 1, 1))]
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
    rows = [Planned(i, 0, 3) for i in range(5)]
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
