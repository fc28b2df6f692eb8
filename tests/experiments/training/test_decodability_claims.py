"""Claims on decodability at the end of training."""

from __future__ import annotations

from dataclasses import replace

import xarray as xr

import tiny_emergence
from tiny_emergence import LAYERS
from tv_lens.experiments.training.claims import claims_of
from tv_lens.experiments.training.decodability_claims import encoded, layers, overlap
from tv_lens.experiments.training.findings import Findings, kind_of


def test_bases_that_overlap_separate_by_group_only():
    run = tiny_emergence.emergence("overlapping", change=(3, 3, 3, 3))
    assert kind_of(run) == "overlapping"
    verdicts = {one.claim: one.verdict for one in claims_of(Findings(run))}
    assert verdicts["groups of bases separate"] in ("agrees", "undecided")
    assert verdicts["within a group, bases never separate"] == "agrees"
    assert "half-way only representations across clusters hurt" not in verdicts


def test_the_first_layer_and_a_network_of_one_layer(run):
    reversed_layers = run.td.values.isel(layer=slice(None, None, -1)).assign_coords(layer=list(LAYERS))
    first = Findings(replace(run, td=replace(run.td, values=reversed_layers)))
    assert layers(first).verdict == "disagrees" and layers(first).ours == "best at layer 0 of 3, the first"
    alone = Findings(replace(run, td=run.td.sel(layer=[2])))
    assert layers(alone) is None


def test_what_is_encoded_does_not_overlap(run):
    twice = xr.concat([run.td.values, run.td.values], "example", coords="minimal", compat="override")
    values = twice.assign_coords(example=range(twice.sizes["example"]))  # 60 of 60 could still be 0.94
    values[:] = 1.0
    before_training = Findings(replace(run, td=replace(run.td, values=values.copy())))
    assert encoded(before_training).verdict == "not specific"  # an untrained network does as much
    values[{"step": 0}] = 0.0
    perfect = Findings(replace(run, td=replace(run.td, values=values)))
    assert encoded(perfect).verdict == "agrees" and overlap(perfect).verdict == "disagrees"
    values[:] = 0.0
    nothing = Findings(replace(run, td=replace(run.td, values=values)))
    assert encoded(nothing).verdict == "disagrees" and overlap(nothing).verdict == "agrees"
