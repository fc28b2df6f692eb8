"""The page of the paper's experiments."""

from __future__ import annotations

from dataclasses import replace

import tv_lens as tv


def test_every_experiment_has_a_section(result):
    text = tv.report(result).html
    for heading in (
        "Claims",
        "bitwise: encoding (Figs. 3, 19, 23)",
        "bitwise: decodability and accuracy (Fig. 4)",
        "bitwise: steering (Fig. 20)",
        "bitwise: instruction (Figs. 25, 26)",
        "bitwise: finetuning (Table 1, Fig. 24)",
        "Checkpoints and models (Figs. 5, 6, 21, 22)",
    ):
        assert f">{heading}</h2>" in text
    assert "Losses: first 1 layers: " in text and f"fingerprint {result.model['fingerprint']}" in text


def test_what_was_left_out_has_no_section(result):
    less = replace(result, steering={}, instruction={}, finetuning={}, comparison=None, left_out={"all": "too long"})
    text = tv.report(less).html
    assert "Not run" in text and "all: too long" in text
    for word in ("steering (Fig. 20)", "instruction (Figs.", "finetuning (Table 1", "Checkpoints and models"):
        assert word not in text
