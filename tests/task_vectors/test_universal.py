"""Heads over tasks: each task counts alike."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import InvalidArgument
from tv_lens.task_vectors.universal import UniversalHeads

PAIRING, OTHER = tiny_characters.pairings(2)


SMALL = tv.methods.FunctionVector(layer=1, heads=3, shots=3, contexts=4, prompts=6, dev=4)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def test_universal_heads_average_over_tasks(model, tmp_path):
    found = tv.methods.universal_heads(model, [PAIRING, OTHER], method=SMALL, progress=False)
    each = [SMALL.effects(model, task, progress=False).mean().values for task in (PAIRING, OTHER)]
    np.testing.assert_allclose(found.over_tasks.mean().values, np.mean(each, axis=0), atol=1e-12)
    best = np.argsort(-np.mean(each, axis=0).reshape(-1), kind="stable")[:3]
    assert found.heads(3) == [divmod(int(at), tiny.HEADS) for at in best]
    table = found.ranking(top=3)
    assert [*zip(table["layer"], table["head"])][:3] == found.heads(3) and table["tasks"].between(0, 2).all()
    assert table["tasks"].sum() == 6
    made = tv.extract(model, PAIRING, method=found.method(3, layer=1), progress=False)
    assert [tuple(head) for head in made.method["summed_heads"]] == found.heads(3)
    assert repr(found).startswith("UniversalHeads(of 2 tasks: pairing-0, pairing-1")
    again = UniversalHeads.load(found.save(tmp_path / "file"))
    assert again.measured_with == found.measured_with and again.ranking().equals(found.ranking())
    assert list(again.by_task) == list(found.by_task)
    assert all(again.by_task[task].values.identical(one.values) for task, one in found.by_task.items())
    with pytest.raises(InvalidArgument, match="two at least"):
        tv.methods.universal_heads(model, [PAIRING, PAIRING], method=SMALL)
    with pytest.raises(InvalidArgument, match="top=13"):
        found.heads(13)
