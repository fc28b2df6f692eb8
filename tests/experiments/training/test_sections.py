"""Sections of the page: tiles, tables, and the rows of change points."""

from __future__ import annotations

import pandas as pd
import pytest

import tiny_emergence
from tv_lens.experiments.training import sections
from tv_lens.experiments.training.findings import Findings
from tv_lens.viz.html import Facts, Table


def test_tiles_count_claims_and_networks(findings, claims):
    facts, *_ = sections.summary([findings], list(claims.values()), findings.coupling)
    assert isinstance(facts, Facts) and facts.values["Run"][0] == "disjoint-0"
    agree, disagree, undecided = (int(count) for count in facts.values["Claims"][0].split(" / "))
    assert agree + disagree + undecided == len(claims) == 11
    both, *_ = sections.summary([findings, findings], list(claims.values()), findings.coupling)
    assert both.values["Runs"][0] == 2


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
    assert sections.measured(functions)[1] == "- size: by hand\n- n: 60"
