"""Where rows begin to differ: entry layers, first positions, and edits that are moved to the next layer."""

from __future__ import annotations

import torch

from tv_lens.intervention import Add, Replace, Zero
from tv_lens.rows.edits import PlacedEdit, Row
from tv_lens.rows.entering import Planned, entered, planned_row
from tv_lens.site import Site


def zeroed(site: Site, *positions: int) -> PlacedEdit:
    return PlacedEdit(Zero(site), positions)


def test_a_row_enters_at_its_first_edited_layer_and_begins_at_its_first_position():
    assert planned_row(7, Row(0), 9, 3) == Planned(7, 2, 8)  # no edit: the last token through the last layer
    assert planned_row(0, Row(0, (zeroed(Site("z", 1), 4),)), 9, 3) == Planned(0, 1, 4)
    two = Row(0, (zeroed(Site("z", 2), 8), zeroed(Site("mlp_out", 1), 5, 6)))
    assert planned_row(0, two, 9, 3) == Planned(0, 1, 5)
    assert (
        planned_row(0, Row(0, (zeroed(Site("resid_post", 0), 8),)), 9, 3).entry_layer == 1
    )  # what enters the next one
    assert planned_row(0, Row(0, (zeroed(Site("final_norm"), 8),)), 9, 3).entry_layer == 2


def test_an_edit_of_what_leaves_a_layer_is_one_of_what_enters_the_next():
    vector = torch.ones(4)
    moved = entered(Add(Site("resid_post", 0), vector, 2.0), 3)
    assert moved.site == Site("resid_pre", 1) and moved.scale == 2.0 and moved.vector is vector
    stacked = entered(Replace(Site("resid_post", 1), vector).then(Add(Site("resid_post", 1), vector)), 3)
    assert {part.site for part in stacked.parts} == {stacked.site} == {Site("resid_pre", 2)}
    for stays in (Zero(Site("resid_post", 2)), Zero(Site("mlp_out", 0))):
        assert entered(stays, 3) is stays
