"""The same prompts without and with an instruction."""

from __future__ import annotations

import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.instruction import _bare, _told, with_instruction


def test_instructions_with_their_control(model, bits):
    found = with_instruction(model, bits, shots=(1, 2), n=6, k=2, queries=3, layers=[2], progress=False)
    assert found.accuracy.values.dims[0] == "example" and "condition" in found.accuracy.axes
    table = found.table()
    assert list(table["condition"]) == ["demonstrations"] * 2 + ["instruction"] * 2
    assert "TD at layer 0" in table and table["TD"].between(0, 1).all()
    told = with_instruction(
        model, [one.instructed() for one in bits], shots=(1, 2), n=6, k=2, queries=3, layers=[2], progress=False
    )
    assert told.table().equals(table)
    with pytest.raises(InvalidArgument, match="has no instruction"):
        with_instruction(model, ["present-past", "present-third"], shots=(1, 2), n=6, queries=2, k=2, progress=False)


def test_an_instruction_is_put_before_the_prompt_and_taken_away_again(bits):
    instructed = bits[0].instructed()
    assert _told(instructed) and not _told(bits[0])
    assert _bare(instructed) == bits[0].template and _bare(bits[0]) == bits[0].template
