"""Edits at rows, positions and heads: out of place, one for each site of a call, never of padding."""

from __future__ import annotations

import re

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import POS, TOKENS, Call, Made, Noise, open_and_run, overflowing
from tv_lens.errors import DuplicateSite, InvalidArgument, MisalignedPrompts, NonFiniteActivation, ShapeMismatch
from tv_lens.intervention import Add, Intervention, Mean, Replace, Resample, Zero
from tv_lens.model.editing import Edit, edited, positions_of
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import Site


def test_R3_an_edit_that_writes_into_its_input_is_refused(llama):
    def spoil(x):
        x.zero_()

    with pytest.raises(InvalidArgument) as caught:
        llama.run(TOKENS, Call("resid_post[0]", spoil))
    assert str(caught.value) == (
        "Call(resid_post[0]) changes its input in place.\n"
        "  do:      return a new tensor, such as x * 0 instead of x.zero_()."
    )


OVERLAPPING = [
    ("z[1]", "z[1]"),
    ("z[1]", "z[1].h2"),
    ("z[1].h2", "z[1]@-1"),
    ("z[1]@1,2", "z[1]@2,3"),
    ("embed", "embed@0"),
    ("resid_mid[0]", "resid_mid[0]@3"),
]


@pytest.mark.parametrize("first, second", OVERLAPPING)
def test_R7_the_same_site_twice_in_one_call_is_an_error(llama, first, second):
    for call in (llama.run, lambda t, e: open_and_run(llama, t, e)):
        with pytest.raises(DuplicateSite) as caught:
            call(TOKENS, [Zero(first), Zero(second)])
        assert str(caught.value) == (
            "Two interventions edit the same site in one call.\n"
            f"  got:     {first} and {second}\n"
            "  do:      stack them on purpose: first.then(second); or nest two model.intervene contexts."
        )


def test_R7_two_spellings_of_one_position_are_the_same_site(llama):
    """Only the prompt tells that position 6 is position -1, so this is found when it runs."""
    llama.run(TOKENS, [Zero("z[1]@5"), Zero("z[1]@-1")])
    with pytest.raises(DuplicateSite, match=r"z\[1\]@6 and z\[1\]@-1"):
        llama.run(TOKENS, [Zero("z[1]@6"), Zero("z[1]@-1")])


@pytest.mark.parametrize(
    "first, second", [("z[1].h1", "z[1].h2"), ("z[1]@0", "z[1]@1"), ("z[0]", "z[1]"), ("q[0]", "k[0]")]
)
def test_R7_edits_of_other_numbers_are_not_the_same_site(llama, first, second):
    together = llama.run(TOKENS, [Zero(first), Zero(second)])
    with llama.intervene(Zero(first)):
        assert torch.equal(llama.run(TOKENS, Zero(second)), together)


def test_R7_stacked_on_purpose_the_same_site_twice_is_allowed(llama):
    ones = torch.ones(tiny.D_MODEL)
    stacked = llama.run(TOKENS, Replace("resid_post[1]", ones).then(Add("resid_post[1]", ones)))
    assert torch.equal(stacked, llama.run(TOKENS, Replace("resid_post[1]", 2 * ones)))


def test_placed_edits_share_one_pass_as_if_each_had_run_alone(model, family):
    """Row i of the batch carries edit i, each at its own position and head: many interventions, one pass."""
    batch = model.tokens(TOKENS)
    plans = [("resid_post[1]", None, 2), ("z[0]", 1, 6), ("z[0]", 3, 0), ("mlp_out[2]", None, 5), ("q[1]", 2, 3)]
    edits = []
    for row, (name, head, col) in enumerate(plans):
        tensor = Site.parse(name)
        edit = Noise(Site(tensor.component, tensor.layer, head), seed=row)
        edits.append(Edit(edit, torch.tensor([row]), torch.tensor([col])))
    together, _ = model.forward(batch, edits, logits_at=batch.last[:, None])
    clean = model.run(TOKENS)
    for row, edit in enumerate(edits):
        alone = model.run(TOKENS[row : row + 1], Noise(edit.site.at(plans[row][2]), seed=row))
        assert torch.allclose(together[row, 0], alone[0], rtol=0, atol=2e-6 * float(clean.abs().max())), plans[row]


@pytest.mark.parametrize(
    "edit", [Mean("resid_post[0]"), Resample("z[1].h2"), Zero("q[0]").then(Mean("q[0]"))], ids=repr
)
def test_an_edit_across_prompts_of_different_lengths_is_refused(llama, edit):
    """At a position that another prompt does not have there is only padding to take a value from."""
    padded = tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    with pytest.raises(MisalignedPrompts) as caught:
        llama.run(padded, edit)
    assert str(caught.value) == (
        f"{edit.label} takes values from prompts of other lengths, which have padding there.\n"
        "  got:     prompts of 2 to 4 tokens\n"
        "  do:      name a position that every prompt has, such as -1, or use prompts of one length."
    )


def test_an_edit_across_prompts_at_a_position_they_all_have_is_fine(llama):
    padded = tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    with llama.intervene(Resample("resid_post[0]@-1")):
        found = llama.capture(padded, "resid_post[0]@-1")["resid_post[0]@-1"]
    clean = llama.capture(padded, "resid_post[0]@-1")["resid_post[0]@-1"]
    assert torch.equal(found, clean[[1, 0]])


@pytest.mark.parametrize(
    "edit", [Zero("scores[1]"), Mean("scores[1]"), Zero("scores[1].h2").then(Noise("scores[1].h2"))], ids=repr
)
def test_an_edit_of_the_scores_keeps_the_causal_mask(llama, edit):
    """With zeros in the mask's place a token would attend to what comes after it."""
    other = TOKENS.clone()
    other[:, 4:] = 50
    before = llama.run(TOKENS, edit, logits="all")[:, :4]
    assert bool(before.isfinite().all())
    assert torch.equal(llama.run(other, edit, logits="all")[:, :4], before)
    with llama.intervene(Zero("scores[1]")):
        pattern = llama.capture(TOKENS, "pattern[1]")["pattern[1]"]
    even = torch.tril(torch.ones(POS, POS)) / torch.arange(1, POS + 1)[:, None]
    assert torch.allclose(pattern, even.expand_as(pattern), atol=1e-6)


def test_a_value_that_does_not_fit_is_refused_in_the_users_words(llama):
    with pytest.raises(ShapeMismatch) as caught:
        llama.run(TOKENS, Replace("z[1].h2@-1", torch.ones(tiny.D_MODEL)))
    assert str(caught.value) == (
        "The value does not fit z[1].h2@-1.\n  got:     shape [32]\n  allowed: [5, 8], or what broadcasts to it"
    )


def test_an_edit_acts_at_its_rows_columns_and_head_and_nowhere_else():
    """Numbers 0 to 11 as `batch=2 pos=3 head=2 d_head=1`, worked out by hand."""
    x = torch.arange(12.0).view(2, 3, 2, 1)
    everywhere = edited(x, Zero("z[0]"), None, None)
    assert not everywhere.any() and torch.equal(x, torch.arange(12.0).view(2, 3, 2, 1))
    rows, columns = torch.tensor([0, 1]), torch.tensor([2, 0])
    one_head = edited(x, Zero("z[0].h1"), rows, columns)
    assert one_head.flatten().tolist() == [0, 1, 2, 3, 4, 0, 6, 0, 8, 9, 10, 11]
    added = edited(x, Add("z[0].h0", torch.tensor([10.0])), None, None)
    assert added.flatten().tolist() == [10, 1, 12, 3, 14, 5, 16, 7, 18, 9, 20, 11]


def test_positions_of_padded_prompts_are_counted_in_each_prompt():
    batch = tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    rows, columns = positions_of(batch, -1, torch.device("cpu"))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [3, 1])
    rows, columns = positions_of(batch, (0, -1), torch.device("cpu"))
    assert (rows.tolist(), columns.tolist()) == ([[0], [1]], [[0, 3], [0, 1]])


def test_an_edit_that_changes_the_shape_is_refused_in_the_users_words():
    class Halved(Intervention):
        def edit(self, x):
            return x[..., ::2]

    with pytest.raises(ShapeMismatch) as caught:
        edited(torch.ones(1, 2, 4), Halved("resid_post[0]"), None, None)
    assert str(caught.value).endswith("changed the shape of what it edits.\n  got:     [1, 2, 2]\n  allowed: [1, 2, 4]")


# ---- numbers that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "site", ["resid_post[1]", "resid_mid[1]@-1", "z[1].h2@0,-1", "pattern[1]", "scores[1]", "k[1]"]
)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_an_edit_makes_of_a_finite_site_is_an_error_that_names_it(llama, site, bad):
    def one_bad(x):
        x = x.clone()
        x.view(-1)[0] = bad
        return x

    with pytest.raises(NonFiniteActivation, match=rf"^Made\({re.escape(site)}\) makes values") as caught:
        llama.run(TOKENS, Made(site, one_bad))
    assert caught.value.got.startswith("1 of ") and f"at {site}" in caught.value.got
    with llama.intervene(Made(site, one_bad)), pytest.raises(NonFiniteActivation):
        llama.capture(TOKENS, "resid_post[2]@-1")


def test_a_score_may_be_minus_infinity(llama):
    """It hides a key: as an edit of the pattern, renormalised, hides it."""

    def hide(x):
        x = x.clone()
        x[..., 1:, 0] = -torch.inf  # not the first query, which sees nothing else
        return x

    def renormalised(x):
        x = x.clone()
        x[..., 1:, 0] = 0.0
        return x / x.sum(-1, keepdim=True)

    hidden = llama.run(TOKENS, Made("scores[1]", hide))
    torch.testing.assert_close(hidden, llama.run(TOKENS, Made("pattern[1]", renormalised)), atol=1e-5, rtol=1e-5)


def test_a_value_beyond_the_models_dtype_is_refused_in_a_pass(half):
    big = torch.full((tiny.D_MODEL,), 1e5)
    for edit in (Replace("resid_post[1]@-1", big), Made("resid_post[1]@-1", lambda x: x.float() + 1e5)):
        with pytest.raises(InvalidArgument, match=re.escape(f"{edit.label} writes a value")) as caught:
            half.run(TOKENS, edit)
        assert "float16 holds up to 65504" in str(caught.value) and "resid_post[1]@-1" in caught.value.got
    # As a row among others, too.
    rows = [Row(0, (PlacedEdit(Replace(Site("resid_post", 1), big), (2,)),))]
    for engine in ("rows", "passes"):
        with pytest.raises(InvalidArgument, match="cannot hold"):
            run_rows(half, half.tokens(TOKENS), rows, lambda logits, _: logits[:, 0], engine=engine)


def test_an_edit_after_an_overflow_is_not_blamed_for_it(half):
    with pytest.raises(NonFiniteActivation, match=r"own activation at resid_post\[2\] is NaN or infinite before Add"):
        half.run(TOKENS, [*overflowing(), Add("resid_post[2]", torch.ones(tiny.D_MODEL))])
