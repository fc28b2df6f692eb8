"""The page of decoding circuits."""

from __future__ import annotations

from dataclasses import replace

import tv_lens as tv
from tv_lens.experiments.vector_circuits.page import circuit_parts
from tv_lens.viz.html import Note


def test_the_page_draws_each_circuit_with_its_attention_and_its_curve(known):
    text = tv.report(known).html
    assert text.count('<svg class="tvc"') == 2 and "The circuit of switch-b" in text
    assert "a2.h3" in text and text.count("var CircuitsVis=") == 1


def test_a_vector_without_a_certain_effect_is_noted(known):
    circuit = known.found["switch-a"]
    gap = circuit.curve.corrupted.copy(data=[1.0, -0.5])  # of two queries, one each way
    curve = replace(circuit.curve, clean=circuit.curve.corrupted + gap)
    notes = [part.text for part in circuit_parts(replace(circuit, curve=curve)) if isinstance(part, Note)]
    assert len(notes) == 1 and "does not certainly change the metric" in notes[0]
    assert not [part for part in circuit_parts(circuit) if isinstance(part, Note)]


def test_how_it_was_measured_is_on_the_page(known):
    text = tv.report(known).html
    assert "mean residual stream of 3 prompts with 3 demonstrations" in text and "as requested" in text
    assert "What the tasks share" not in text
