"""The known circuits in Llama: the tables they look up, and the vector of the task switch."""

from __future__ import annotations

import pytest

import tv_lens as tv
from tv_lens.circuits import truth


def test_the_switchs_vector_is_what_the_encoder_writes():
    """The known vector is the residual stream after the encoder; one extracted from prompts is it, but for junk."""
    found = truth.task_switch(n=6)
    first, second = truth.switch_tasks()
    vectors = {}
    for task, sign in ((first, 1.0), (second, -1.0)):
        known = truth.switch_vector(found.model, sign)
        made = tv.extract(
            found.model, task, method=tv.methods.ResidualMean(layer=0, shots=3, contexts=4), progress=False
        )
        vectors[sign] = made.direction
        queries = task.queries(n=2)
        for edit in (known, made.replace()):
            assert tv.score(found.model, queries, edit, progress=False).first_token.mean() == 1
        assert tv.score(found.model, queries, progress=False).first_token.mean() == 0
    known_difference = truth.switch_vector(found.model, 1.0).value - truth.switch_vector(found.model, -1.0).value
    difference = vectors[1.0] - vectors[-1.0]
    task_axis = known_difference.nonzero()[:, 0]
    assert len(task_axis) == 1 and float(difference[task_axis]) == pytest.approx(2.0, abs=1e-3)


def test_two_steps_answer_by_one_table_after_another():
    """Eight entities, one to one to half-way names, two to one to four answers; the twin has another answer."""
    pairs = truth.two_steps(n=40).prompts
    answer_of = {}
    for clean, corrupted in pairs:
        for prompt, answer in ((clean, clean.answer), (corrupted, clean.foil)):
            (entity,) = set(prompt.text.split()) & set("PQRSTUVW")
            assert answer_of.setdefault(entity, answer) == answer
        assert clean.answer != clean.foil
    assert (
        len(answer_of) == 8
        and sorted(list(answer_of.values()).count(one) for one in set(answer_of.values())) == [2] * 4
    )


def test_the_tasks_of_the_switch_are_two_permutations_of_the_same_inputs():
    first, second = truth.switch_tasks(seed=3)
    assert set(first.lookup) == set(second.lookup) == {f"x{i}" for i in range(10)}
    assert set(first.lookup.values()) == {f"a{i}" for i in range(10)}
    assert [y[1:] for y in first.lookup.values()] != [y[1:] for y in second.lookup.values()]
    assert truth.switch_tasks(seed=3)[0].lookup == first.lookup != truth.switch_tasks(seed=4)[0].lookup
