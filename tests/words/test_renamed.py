"""Old names: each is refused with the new one, and nothing else changes about what carries them."""

import inspect

import pytest

import tv_lens as tv
from tv_lens.errors import RenamedError, TVLensError
from tv_lens.renamed import renamed_attributes, renamed_keywords


@renamed_keywords(show_bar="progress=")
def verb(data, *, progress=True):
    """What comes back."""
    return data, progress


@renamed_keywords(deals="n_label_shuffles=")
class Size:
    def __init__(self, n_label_shuffles=3):
        self.n_label_shuffles = n_label_shuffles

    __getattr__ = renamed_attributes(deals="size.n_label_shuffles")


def test_an_old_keyword_names_the_new_one():
    with pytest.raises(RenamedError) as caught:
        verb(1, show_bar=False)
    assert str(caught.value) == (
        "show_bar= has another name since version 0.2.\n  got:     verb(show_bar=...)\n  do:      use progress="
    )
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, TVLensError)
    with pytest.raises(RenamedError, match="n_label_shuffles="):
        Size(deals=2)


def test_new_keywords_signature_and_docstring_are_untouched():
    assert verb(1, progress=False) == (1, False) and verb.__doc__ == "What comes back."
    assert list(inspect.signature(verb).parameters) == ["data", "progress"]
    assert Size(2).n_label_shuffles == 2


def test_a_keyword_that_never_was_is_still_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'show_barr'"):
        verb(1, show_barr=False)


def test_an_old_attribute_names_the_new_one_and_does_not_exist():
    with pytest.raises(RenamedError, match=r"use size.n_label_shuffles"):
        Size().deals  # noqa: B018
    assert not hasattr(Size(), "deals")
    with pytest.raises(AttributeError, match="no attribute 'dealz'"):
        Size().dealz  # noqa: B018


OLD = {
    "tv.lens": "tv.survey",
    "tv.Run": "tv.RunFolder",
    "tv.Setting": "tv.circuits.CircuitQuestion",
    "tv.circuits.Setting": "tv.circuits.CircuitQuestion",
    "tv.lab.runs": "tv.lab.networks",
    "tv.experiments.LensResult": "tv.experiments.TaskSurvey",
}


@pytest.mark.parametrize("old", OLD)
def test_a_public_name_of_version_0_1_names_the_new_one(old):
    with pytest.raises(RenamedError, match=f"use {OLD[old]}"):
        eval(old, {"tv": tv})


@pytest.mark.parametrize(
    "call, new",
    [
        (lambda: tv.patch(None, None, run="results"), "folder="),
        (lambda: tv.patch(None, None, plan="hooks"), "engine="),
        (lambda: tv.decodability(None, None, site="resid_post"), "component="),
        (lambda: tv.vector_sweep(None, None, positions=(-1,)), "pos="),
        (lambda: tv.evaluate(None, None, random_seeds=3), "n_random="),
        (lambda: tv.HookedModel.capture(None, None, positions=-1), "pos="),
        (lambda: tv.methods.FunctionVector().effects(None, None, run="results"), "folder="),
        (lambda: tv.rows.run_rows(None, show_progress=False), "progress="),
        (lambda: tv.emergence("bases4", draw=1), "network_seed="),
        (lambda: tv.survey(None, None, run="results"), "folder="),
    ],
)
def test_a_keyword_of_version_0_1_names_the_new_one(call, new):
    with pytest.raises(RenamedError, match=new):
        call()
