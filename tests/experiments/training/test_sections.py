"""Sections of the page: tiles, tables, and the rows of change points."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

import tiny_emergence
from tv_lens.experiments.training import sections
from tv_lens.experiments.training.claims import claims_of
from tv_lens.experiments.training.findings import Findings
from tv_lens.viz.html import Facts, Table


def test_tiles_count_claims_and_networks(findings, claims):
    facts, *_ = sections.summary([findings], list(claims.values()), findings.coupling)
    assert isinstance(facts, Facts) and facts.values["Run"][0] == "disjoint-0"
    counts = [int(count) for count in facts.values["Claims"][0].split(" / ")]
    assert sum(counts) == len(claims) == 11 and facts.values["Claims"][1].startswith("agrees")
    both, *_ = sections.summary([findings, findings], list(claims.values()), findings.coupling)
    assert both.values["Runs"][0] == 2


def test_a_tile_counts_only_what_is_unanimous(findings, claims):
    """Version 0.1 counted "agrees in 2, disagrees in 1" among those that agree."""
    mixed = [replace(one, verdicts=("agrees", "disagrees", "agrees")) for one in list(claims.values())[:3]]
    unanimous = [replace(one, verdicts=("agrees",) * 3) for one in list(claims.values())[3:5]]
    facts, *_ = sections.summary([findings, findings], [*mixed, *unanimous], findings.coupling)
    assert facts.values["Claims"] == ("2 / 3", "agrees / mixed")


def test_few_checkpoints_order_nothing(run):
    """Version 0.1 told a lag of "7.69 [2.77, 7.69]" and a step "375 [375, 375]" from three checkpoints."""
    few = Findings(tiny_emergence.at_steps(run, (0, 4, 7)))
    assert few.coupling.sentence() == "3 checkpoints cannot order two changes, at least 8 are needed"
    (table, *_) = [part for part in sections.timing(few, [], few.coupling) if isinstance(part, Table)]
    rows = table.frame.set_index("task")
    assert rows.loc["basis 0", "loss drops at step"] == "between 0 and 80"
    assert set(rows["decodability's step / loss's"]) == {"–"}
    two = Findings(tiny_emergence.at_steps(run, (0, 7)))
    text = next(part for part in sections.layers(two, []) if isinstance(part, str) and "Checkpoints:" in part)
    assert "too few checkpoints" in text
    by_name = {one.claim: one for one in claims_of(few)}
    for name in (
        "tasks are learnt one after another",
        "tasks are encoded one after another",
        "loss and decodability change together",
        "each task's decodability goes with its own loss",
    ):
        assert by_name[name].verdict == "not testable" and "too few: 3 checkpoints" in by_name[name].missing


def test_a_task_that_does_not_change_has_no_step():
    never = Findings(tiny_emergence.emergence(change=(1, 2, 3, 99)))
    tables = [part for part in sections.timing(never, [], never.coupling) if isinstance(part, Table)]
    rows = tables[0].frame.set_index("task")
    assert tables[0].caption.startswith("Change points (half-way)")
    assert rows.loc["basis 3", "loss drops at step"] == "no change"
    assert rows.loc["basis 3", "decodability's step / loss's"] == "–"
    assert "[" in rows.loc["basis 0", "loss drops at step"]


def test_controls_stand_beside_decodability(run, findings):
    *_, table = sections.timing(findings, [], findings.coupling)
    assert len(table.frame) == 2 * len(run.tasks)
    first = table.frame.iloc[0]
    control = run.td_controls.sel(token=first.token, control="answers", task=first.task).mean()
    assert first["from the answers"] == pytest.approx(float(control)) and pd.notna(first["chance high"])


def test_sections_that_have_nothing_to_show_are_left_out(findings):
    functions = tiny_emergence.emergence("functions")
    assert sections.seeds([findings]) == [] and sections.posterior(functions) == []
    assert [one.title for one in sections.posterior(findings.result)] == ["Against the Bayesian (ours)"]
    assert sections.measured(functions)[1] == "- size: by hand\n- held-out episodes per task: 60"
