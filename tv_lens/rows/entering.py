"""Where a row begins to differ from its base run: its entry layer and its first position, and its edits in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tv_lens.intervention import Intervention, Stack
from tv_lens.rows.edits import PlacedEdit, Row
from tv_lens.site import Site


@dataclass(frozen=True)
class Planned:
    """A row's number, and the layer and position at which it begins to differ from the base run."""

    row: int
    entry_layer: int
    start: int


def planned_row(number: int, row: Row, length: int, n_layers: int) -> Planned:
    """Where a row of a prompt of some length begins to differ; without edits, at the last token of the last layer."""
    last = n_layers - 1
    sites = [cast(Site, edit.intervention.site) for edit in row.edits]
    # What leaves a layer enters the next one, and is first changed there.
    entry_layers = [last if s.layer is None else min(last, s.layer + (s.component == "resid_post")) for s in sites]
    starts = [min(edit.positions) for edit in row.edits]
    return Planned(number, min(entry_layers, default=last), min(starts, default=length - 1))


def entered(intervention: Intervention, n_layers: int) -> Intervention:
    """An edit of what leaves a layer as the same edit of what enters the next one, which saves the layer."""
    site = intervention.site
    if site.component != "resid_post" or site.layer == n_layers - 1:
        return intervention
    moved = Site("resid_pre", site.layer + 1, pos=site.pos)
    if isinstance(intervention, Stack):
        return Stack(moved, tuple(replace(part, site=moved) for part in intervention.parts))
    return replace(intervention, site=moved)


def as_they_enter(edits: Sequence[PlacedEdit], n_layers: int, known: dict[int, Intervention]) -> list[PlacedEdit]:
    """The edits in the order in which they act: what leaves a layer is edited before what enters the next.

    Args:
        edits: of one row.
        n_layers: of the model.
        known: what was found for interventions before, which many rows have in common.
    """
    for edit in edits:
        if id(edit.intervention) not in known:
            known[id(edit.intervention)] = entered(edit.intervention, n_layers)
    moved = [(edit, known[id(edit.intervention)]) for edit in edits]
    moved.sort(key=lambda pair: pair[1] is pair[0].intervention)
    return [edit if new is edit.intervention else replace(edit, intervention=new) for edit, new in moved]
