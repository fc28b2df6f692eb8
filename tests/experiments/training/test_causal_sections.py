"""Sections on patching, heads and circuits."""

from __future__ import annotations

from dataclasses import replace

from tiny_emergence import STEPS
from tv_lens.experiments.training import causal_sections
from tv_lens.experiments.training.findings import Findings
from tv_lens.viz.figure import Figure
from tv_lens.viz.html import Table


def test_every_matrix_has_a_figure_and_a_table(findings):
    (section,) = causal_sections.patching(findings, [])
    assert section.title == "Patching class means between tasks (Fig. 7)"
    assert [type(part) for part in section.parts[2:]] == [Figure, Table, Figure, Table]
    middle, last = (part for part in section.parts if isinstance(part, Table))
    assert set(middle.frame.columns) >= {"own [95%]", "verdict"} and "others [95%]" in last.frame
    assert "other clusters [95%]" in middle.frame and "distinguished by then: basis 0" in middle.caption


def test_the_table_of_heads_has_the_most_selective_first(findings):
    (section,) = causal_sections.heads(findings, [])
    (table,) = [part for part in section.parts if isinstance(part, Table)]
    assert table.frame.iloc[0].task == "basis 0" and table.frame["selectivity"].is_monotonic_decreasing
    assert {"effect low", "selectivity high"} <= set(table.frame.columns)


def test_what_was_not_measured_has_no_section(run):
    bare = replace(run, patch_matrices={}, ablations={})
    assert causal_sections.patching(Findings(bare), []) == [] and causal_sections.heads(Findings(bare), []) == []
    assert causal_sections.circuits(bare) == [] and STEPS[-1] in run.ablations
