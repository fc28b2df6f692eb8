"""Edits as pure functions, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.intervention import Add, Intervention, Mean, Project, Replace, Resample, Stack, Zero, as_interventions

SITE = "resid_post[1]@-1"
X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 12.0]])  # three prompts, d_model 3
EDITS = {
    "Replace": Replace(SITE, torch.tensor([1.0, 1.0, 1.0])),
    "Add": Add(SITE, torch.tensor([1.0, 0.0, 0.0]), scale=2.0),
    "Zero": Zero(SITE),
    "Mean": Mean(SITE),
    "Mean of a set": Mean(SITE, torch.tensor([4.0, 5.0, 7.0])),
    "Resample": Resample(SITE),
    "Project": Project(SITE, torch.tensor([1.0, 1.0, 0.0])),
    "Project keep": Project(SITE, torch.tensor([1.0, 1.0, 0.0]), keep=True),
    "Stack": Zero(SITE).then(Add(SITE, torch.tensor([1.0, 2.0, 3.0]))),
}


@pytest.mark.parametrize("name", EDITS)
def test_R3_an_edit_gives_a_new_tensor_and_leaves_its_input(name):
    x = X.clone()
    out = EDITS[name].edit(x)
    assert torch.equal(x, X) and out.shape == x.shape and out.dtype == x.dtype
    assert not torch.equal(out, x)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_keeps_the_dtype_of_the_model(name):
    assert EDITS[name].edit(X.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_prints_what_and_where(name):
    edit = EDITS[name]
    assert SITE in repr(edit) and repr(edit) == edit.label


def test_a_site_may_be_written_as_text():
    assert Zero("z[5].h3").site == tv.Site("z", 5, head=3)
    assert Zero("blocks.5.attn.hook_z").site == tv.Site("z", 5)


def test_replace_writes_one_value_for_all_or_one_for_each():
    assert Replace(SITE, torch.ones(3)).edit(X).tolist() == [[1, 1, 1]] * 3
    each = torch.arange(9.0).reshape(3, 3)
    assert torch.equal(Replace(SITE, each).edit(X), each)
    assert Replace(SITE, torch.tensor(7.0)).edit(X).tolist() == [[7, 7, 7]] * 3


def test_add_adds_scaled_and_nothing_at_scale_zero():
    vector = torch.tensor([1.0, -1.0, 0.5])
    assert torch.equal(Add(SITE, vector, scale=-2.0).edit(X), X - 2 * vector)
    assert torch.equal(Add(SITE, vector, scale=0.0).edit(X), X)
    assert torch.equal(Add(SITE, vector).edit(X), X + vector)


def test_zero_writes_zeros():
    assert Zero(SITE).edit(X).tolist() == [[0, 0, 0]] * 3


def test_mean_over_the_batch_leaves_each_prompt_out():
    assert Mean(SITE).edit(X).tolist() == [[5.5, 6.5, 9.0], [4.0, 5.0, 7.5], [2.5, 3.5, 4.5]]


def test_mean_over_a_reference_set_writes_its_value():
    value = torch.tensor([4.0, 5.0, 7.0])
    assert torch.equal(Mean(SITE, value).edit(X), value.expand(3, 3))


def test_mean_of_one_prompt_has_no_other_to_average():
    with pytest.raises(InvalidArgument) as caught:
        Mean(SITE).edit(X[:1])
    assert str(caught.value) == (
        "Mean(resid_post[1]@-1) over the batch needs at least two prompts.\n"
        "  got:     1\n"
        "  do:      give value=, the mean over a reference set."
    )


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_resample_gives_every_prompt_another_ones_value(batch, seed):
    partners = Resample(SITE, seed=seed).partners(batch)
    assert sorted(partners) == list(range(batch))
    assert all(here != there for here, there in enumerate(partners))
    x = torch.arange(float(batch))[:, None]
    assert Resample(SITE, seed=seed).edit(x).flatten().tolist() == partners


def test_resample_is_drawn_by_its_seed_and_leaves_the_global_generator():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    draws = {seed: Resample(SITE, seed=seed).partners(9) for seed in range(5)}
    assert torch.equal(state, torch.get_rng_state())
    assert draws == {seed: Resample(SITE, seed=seed).partners(9) for seed in range(5)}
    assert len({tuple(d) for d in draws.values()}) == 5
    with pytest.raises(InvalidArgument, match="at least two prompts"):
        Resample(SITE).partners(1)


def test_project_removes_or_keeps_a_direction():
    x = torch.tensor([[3.0, 1.0, 5.0]])
    direction = torch.tensor([2.0, 2.0, 0.0])  # not of unit length
    assert torch.allclose(Project(SITE, direction).edit(x), torch.tensor([[1.0, -1.0, 5.0]]), atol=1e-6)
    assert torch.allclose(Project(SITE, direction, keep=True).edit(x), torch.tensor([[2.0, 2.0, 0.0]]), atol=1e-6)


def test_project_takes_directions_that_are_not_orthogonal_and_dependent_ones():
    x = torch.tensor([[3.0, 1.0, 5.0]])
    oblique = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert torch.allclose(Project(SITE, oblique).edit(x), torch.tensor([[0.0, 0.0, 5.0]]), atol=1e-6)
    twice = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    assert torch.allclose(Project(SITE, twice).edit(x), torch.tensor([[1.0, -1.0, 5.0]]), atol=1e-6)


def test_removing_and_keeping_a_subspace_add_up_and_are_idempotent():
    generator = torch.Generator().manual_seed(0)
    x, directions = torch.randn(4, 2, 8, generator=generator), torch.randn(3, 8, generator=generator)
    out, kept = Project(SITE, directions), Project(SITE, directions, keep=True)
    assert torch.allclose(out.edit(x) + kept.edit(x), x, atol=1e-6)
    assert torch.allclose(out.edit(out.edit(x)), out.edit(x), atol=1e-6)
    assert torch.allclose(out.edit(x) @ directions.T, torch.zeros(4, 2, 3), atol=1e-5)


@pytest.mark.parametrize("directions", [torch.zeros(3), torch.zeros(2, 3), torch.zeros(0, 3)])
def test_project_needs_a_direction(directions):
    with pytest.raises(InvalidArgument, match="needs a direction that is not zero"):
        Project(SITE, directions)


def test_project_takes_a_direction_or_a_list_of_them():
    with pytest.raises(ShapeMismatch) as caught:
        Project(SITE, torch.ones(2, 2, 3))
    assert caught.value.got == "shape [2, 2, 3]"


def test_project_refuses_directions_of_another_length():
    with pytest.raises(ShapeMismatch) as caught:
        Project(SITE, torch.ones(4)).edit(X)
    assert str(caught.value) == (
        "The directions do not fit resid_post[1]@-1.\n  got:     length 4\n  allowed: length 3"
    )


# ---- values that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 3, 3), (5, 3, 3)])
def test_a_value_that_does_not_fit_is_refused_and_never_grows_the_tensor(shape):
    for edit in (Replace(SITE, torch.ones(shape)), Add(SITE, torch.ones(shape)), Mean(SITE, torch.ones(shape))):
        with pytest.raises(ShapeMismatch) as caught:
            edit.edit(X)
        assert str(caught.value) == (
            "The value does not fit resid_post[1]@-1.\n"
            f"  got:     shape {list(shape)}\n"
            "  allowed: [3, 3], or what broadcasts to it"
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("make", [Replace, Add, Mean, Project], ids=lambda kind: kind.__name__)
def test_a_value_that_is_not_finite_is_refused_where_it_is_made(make, bad):
    with pytest.raises(InvalidArgument) as caught:
        make(SITE, torch.tensor([1.0, bad, bad]))
    assert str(caught.value) == (
        "The value for resid_post[1]@-1 is not finite.\n"
        "  got:     2 NaN or infinite entries\n"
        "  do:      look where it was computed."
    )


def test_a_scale_that_is_not_finite_is_refused():
    with pytest.raises(InvalidArgument, match="scale"):
        Add(SITE, torch.ones(3), scale=float("nan"))


# ---- stacks and lists ------------------------------------------------------------------------------------------------


def test_R7_stacking_applies_in_order():
    ones = torch.ones(3)
    assert torch.equal(Zero(SITE).then(Add(SITE, ones)).edit(X), ones.expand(3, 3))
    assert torch.equal(Add(SITE, ones).then(Zero(SITE)).edit(X), torch.zeros(3, 3))
    three = Zero(SITE).then(Add(SITE, ones)).then(Add(SITE, ones))
    assert isinstance(three, Stack) and len(three.parts) == 3 and torch.equal(three.edit(X), 2 * ones.expand(3, 3))
    assert three.label == f"Zero({SITE}) then Add({SITE}) then Add({SITE})"


def test_only_edits_of_one_site_stack():
    with pytest.raises(InvalidArgument) as caught:
        Zero("z[0].h1").then(Zero("z[0].h2"))
    assert str(caught.value) == (
        "Only edits of the same site can be stacked.\n"
        "  got:     z[0].h2\n"
        "  allowed: z[0].h1\n"
        "  do:      pass them side by side instead."
    )


def test_one_intervention_or_several_become_a_tuple():
    one, two = Zero("z[0]"), Zero("z[1]")
    assert as_interventions(one) == (one,)
    assert as_interventions([one, two]) == as_interventions((one, two)) == (one, two)
    assert as_interventions(()) == ()


def test_an_edit_of_ones_own_needs_only_a_site_and_a_function():
    @dataclass(frozen=True, eq=False, repr=False)
    class Negate(Intervention):
        def edit(self, x):
            return -x

    assert torch.equal(Negate(SITE).edit(X), -X)
    assert torch.equal(Negate(SITE).then(Zero(SITE)).edit(X), torch.zeros(3, 3))
    assert repr(Negate(SITE)) == f"Negate({SITE})"


def test_the_edits_are_public():
    assert {tv.Replace, tv.Add, tv.Zero, tv.Mean, tv.Resample, tv.Project, tv.Intervention} == {
        Replace,
        Add,
        Zero,
        Mean,
        Resample,
        Project,
        Intervention,
    }


# ---- which edits carry one prompt's numbers into another -------------------------------------------------------------


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_says_whether_it_mixes_the_prompts_of_a_batch(name):
    """The property agrees with what happens: does prompt 0 change when another prompt does?"""
    edit = EDITS[name]
    other = X.clone()
    other[1:] += 1
    assert edit.mixes_prompts == (not torch.equal(edit.edit(X)[0], edit.edit(other)[0]))


def test_a_stack_mixes_prompts_if_a_part_does():
    assert Zero(SITE).then(Mean(SITE)).mixes_prompts and Zero(SITE).then(Zero(SITE)).mixes_prompts is False


# ---- half precision --------------------------------------------------------------------------------------------------

HALVES = (torch.float16, torch.bfloat16)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["Add", "Mean", "Project", "Project keep"])
def test_half_precision_rounds_once(dtype, name):
    """What float64 computes from the same numbers, rounded to the dtype once."""
    x = (drawn(64, 32) + 3).to(dtype)
    edit = {
        "Add": Add(SITE, drawn(32, seed=1), 0.3),
        "Mean": Mean(SITE),
        "Project": Project(SITE, drawn(4, 32, seed=2)),
        "Project keep": Project(SITE, drawn(4, 32, seed=2), keep=True),
    }[name]
    basis = None if not isinstance(edit, Project) else torch.linalg.qr(edit.directions.double().T).Q
    wide = x.double()
    exact = {
        "Add": lambda: wide + 0.3 * edit.vector.double(),
        "Mean": lambda: (wide.sum(0) - wide) / 63,
        "Project": lambda: wide - wide @ basis @ basis.T,
        "Project keep": lambda: wide @ basis @ basis.T,
    }[name]()
    rounding = torch.finfo(dtype).eps / 2
    error = (edit.edit(x).double() - exact).abs()
    assert bool((error <= 1.01 * rounding * exact.abs() + 1e-5).all())


def test_a_sum_over_prompts_may_leave_float16_where_the_mean_does_not():
    x = torch.full((64, 3), 3000.0, dtype=torch.float16)
    assert torch.equal(Mean(SITE).edit(x), x)


@pytest.mark.parametrize(
    ("edit", "dtype", "largest", "holds"),
    [
        (Replace(SITE, torch.tensor([1.0, -1e5, 7e4])), torch.float16, "100000", "float16 holds up to 65504"),
        (Mean(SITE, torch.tensor([1e5, 0.0, 0.0])), torch.float16, "100000", "float16 holds up to 65504"),
        (Add(SITE, torch.full((3,), 6e4), 2.0), torch.float16, "120", "float16 holds up to 65504"),
        (Replace(SITE, torch.full((3,), 3.4e38)), torch.bfloat16, "3.4e+38", "bfloat16 holds up to 3.38953e+38"),
        (
            Replace(SITE, torch.full((3,), 1e39, dtype=torch.float64)),
            torch.float32,
            "1e+39",
            "float32 holds up to 3.40282e+38",
        ),
        (Zero(SITE).then(Add(SITE, torch.full((3,), 7e4))), torch.float16, "70000", "float16 holds up to 65504"),
    ],
)
def test_a_value_that_the_dtype_cannot_hold_is_refused(edit, dtype, largest, holds):
    with pytest.raises(InvalidArgument, match=r"cannot hold") as caught:
        edit.edit(X.to(dtype))
    error = caught.value
    assert error.got.startswith(largest) and error.got.endswith(f"at {SITE}") and error.allowed == holds
    edit.edit(X.double())
