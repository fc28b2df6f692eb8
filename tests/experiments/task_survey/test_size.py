"""How much a survey measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments import SIZES, SurveySize
from tv_lens.experiments.task_survey.size import size_called


def test_sizes_say_what_they_are():
    assert list(SIZES) == ["demo", "standard", "full"] and all(size.name == name for name, size in SIZES.items())
    with pytest.raises(InvalidArgument, match="A survey's td_prompts is too small"):
        SurveySize(td_prompts=10)


@pytest.mark.parametrize(
    "changed",
    [
        dict(contexts=0),
        dict(dev=0),
        dict(layer_step=0),
        dict(queries=1),
        dict(n_random=0),
        dict(patch_pairs=0),
        dict(patch_shots=1),
        dict(patch_layer_step=0),
    ],
)
def test_a_size_that_measures_nothing_is_refused(changed):
    (name,) = changed
    with pytest.raises(InvalidArgument) as error:
        SurveySize(**changed)
    least = changed[name] + 1
    assert str(error.value) == (f"A survey's {name} is too small.\n  got:     {least - 1}\n  allowed: {least} or more")


def test_a_size_has_a_name_and_may_have_another_number_of_queries():
    assert size_called("demo") is SIZES["demo"] and size_called("demo", 7) == replace(SIZES["demo"], queries=7)
    own = SurveySize(contexts=3)
    assert size_called(own) is own and size_called(own, 5).queries == 5
    with pytest.raises(UnknownName, match="did you mean 'demo'"):
        size_called("dmeo")
