"""tv.patch: identities, axes, alignment, direction, and errors that say what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import InvalidArgument, MisalignedPrompts, NonFiniteMetric, SiteNotWritable, UnknownName


@pytest.fixture(scope="module")
def text_model():
    made = {}

    def make(family: str = "llama") -> tv.HookedModel:
        if family not in made:
            made[family] = tv.load(tiny.hugging_face_model(family), tokenizer=tiny_characters.tokenizer(), name=family)
        return made[family]

    return make


def pairs() -> tv.tasks.PromptPairs:
    return tv.tasks.PromptPairs.from_texts(
        clean=["ab>ba;cd>", "pq>qp;rs>", "xy>yx;ef>"],
        corrupted=["ab>ab;cd>", "pq>pq;rs>", "xy>xy;ef>"],
        answers=["d", "s", "f"],
        foils=["c", "r", "e"],
    )


def test_a_full_patch_of_the_stream_is_the_source_run(text_model):
    model = text_model()
    sweep = tv.patch(model, pairs(), tv.sites("resid_post"), over=("layer",), progress=False)
    np.testing.assert_allclose(sweep.values, np.repeat(sweep.clean.values[:, None], 3, 1), atol=1e-5)
    broken = tv.patch(model, pairs(), tv.sites("resid_post"), over="layer", direction="noising", progress=False)
    np.testing.assert_allclose(broken.values, np.repeat(sweep.corrupted.values[:, None], 3, 1), atol=1e-5)
    np.testing.assert_allclose(sweep.recovery().mean().values, 1.0, atol=1e-4)
    np.testing.assert_allclose(broken.recovery().mean().values, 0.0, atol=1e-4)


def test_clean_equal_to_corrupted_has_no_effect(text_model):
    same = tv.tasks.PromptPairs.from_texts(["ab>ba;cd>"], ["ab>ba;cd>"], answers=["d"], foils=["c"])
    for engine in ("rows", "passes"):
        sweep = tv.patch(
            text_model(), same, tv.sites("z"), over=("layer", "head", "pos"), engine=engine, progress=False
        )
        np.testing.assert_allclose(sweep.values - sweep.clean, 0, atol=2e-6)  # sums in other orders


def test_the_engines_agree_on_every_axis(text_model):
    model = text_model("gemma2")
    for component, over in (
        ("resid_pre", ("layer", "pos")),
        ("z", ("layer", "head")),
        ("v", ("layer", "head", "pos")),
        ("mlp_out", ("layer", "span")),
        ("attn_out", ("pos",)),
        ("resid_mid", ("layer", "pos")),
    ):
        found = [
            tv.patch(model, pairs(), tv.sites(component), over=over, engine=engine, progress=False)
            for engine in ("rows", "passes")
        ]
        assert [sweep.provenance["engine"] for sweep in found] == ["rows", "passes"]
        assert found[0].values.dims == ("example", *over)
        np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-5)


def test_axes_are_labelled_and_positions_carry_their_tokens(text_model):
    sweep = tv.patch(text_model(), pairs(), tv.sites("resid_pre", layer=[0, 2]), progress=False)
    assert sweep.values.sizes == {"example": 3, "layer": 2, "pos": 9}
    assert sweep.values.layer.values.tolist() == [0, 2]
    assert sweep.values.token.values.tolist()[2] == ">"
    assert sweep.units == "logits" and sweep.provenance["direction"] == "denoising"


def test_several_components_side_by_side(text_model):
    sweep = tv.patch(
        text_model(), pairs(), tv.sites("attn_out", "mlp_out", pos=-1), over=("component", "layer"), progress=False
    )
    assert sweep.values.component.values.tolist() == ["attn_out", "mlp_out"]
    alone = tv.patch(text_model(), pairs(), tv.sites("mlp_out", pos=-1), over=("layer",), progress=False)
    np.testing.assert_allclose(sweep.values.sel(component="mlp_out"), alone.values, atol=1e-5)


def test_the_last_token_needs_no_alignment(text_model):
    uneven = tv.tasks.PromptPairs.from_texts(["ab>ba;cd>"], ["cd>"], answers=["d"], foils=["c"])
    last = tv.patch(text_model(), uneven, tv.sites("resid_post", pos=-1), over=("layer",), progress=False)
    np.testing.assert_allclose(last.values[0, -1], last.clean[0], atol=1e-5)
    with pytest.raises(MisalignedPrompts) as caught:
        tv.patch(text_model(), uneven, tv.sites("resid_post"), progress=False)
    assert "do not line up in pair 0" in str(caught.value)


def test_patterns_go_through_whole_passes_and_say_so(text_model):
    sweep = tv.patch(text_model(), pairs(), tv.sites("pattern"), over=("layer", "head"), progress=False)
    assert sweep.provenance["engine"] == "passes" and "pattern" in sweep.provenance["engine_why"]
    with pytest.raises(SiteNotWritable, match="discarded by GPTJForCausalLM"):
        tv.patch(text_model("gptj"), pairs(), tv.sites("pattern"), over=("layer", "head"), progress=False)


def test_the_model_is_left_as_it_was(text_model):
    model = text_model()
    before = model.run("ab>ba;cd>")
    tv.patch(model, pairs(), tv.sites("z"), over=("layer", "head"), progress=False)
    assert torch.equal(model.run("ab>ba;cd>"), before)
    assert not model.registry.attached and not model.registry.foreign_hooks()


def test_any_metric_and_a_metric_that_fails(text_model):
    model = text_model()
    for metric in (tv.metrics.log_prob, tv.metrics.prob, tv.metrics.rank, tv.metrics.kl, tv.metrics.exact_match):
        found = tv.patch(model, pairs(), tv.sites("resid_post", pos=-1), over=("layer",), metric=metric, progress=False)
        assert found.metric == metric.__name__
    assert (
        tv.patch(
            model, pairs(), tv.sites("resid_post"), over=("layer",), metric=tv.metrics.kl, progress=False
        ).values.max()
        < 1e-5
    )
    with pytest.raises(NonFiniteMetric, match="the clean run"):
        tv.patch(
            model, pairs(), tv.sites("z"), metric=lambda logits, answers: logits[:, 0] * float("nan"), progress=False
        )


def test_errors_name_what_is_allowed(text_model):
    model = text_model()
    for arguments, error, words in (
        (dict(sites=tv.sites("resid_post"), over=("layr",)), UnknownName, "did you mean 'layer'?"),
        (dict(sites=tv.sites("resid_post"), direction="denoise"), UnknownName, "'denoising'"),
        (dict(sites=tv.sites("resid_post"), over=("layer", "head")), InvalidArgument, "cannot be swept over heads"),
        (dict(sites=tv.sites("z", pos=-1), over=("layer", "pos")), InvalidArgument, "name a position"),
        (dict(sites=tv.sites("z"), over=("pos", "span")), InvalidArgument, "axes of a sweep"),
        (dict(sites=tv.sites("z", layer=9), over=("layer",)), tv.errors.TVLensError, "layers 0 to 2"),
        (dict(sites=tv.sites("z", head=9), over=("layer",)), tv.errors.TVLensError, "heads 0 to 3"),
        (dict(sites=tv.sites("z", pos=50), over=("layer",)), tv.errors.TVLensError, "beyond"),
        (dict(sites=["z[0].h1", "z[1].h2"], over=("layer", "head")), InvalidArgument, "do not fill a grid"),
    ):
        with pytest.raises(error) as caught:
            tv.patch(model, pairs(), progress=False, **arguments)
        assert words in str(caught.value), str(caught.value)
    with pytest.raises(UnknownName, match="did you mean 'resid_post'"):
        tv.sites("resid_pots")


def test_a_budget_splits_the_work_and_changes_no_value(text_model):
    roomy = tv.patch(text_model(), pairs(), tv.sites("resid_pre"), progress=False)
    tight = tv.patch(text_model(), pairs(), tv.sites("resid_pre"), progress=False, memory_budget=150_000)
    np.testing.assert_allclose(roomy.values, tight.values, atol=1e-5)
    with pytest.raises(tv.errors.TVLensError, match="at least"):
        tv.patch(text_model(), pairs(), tv.sites("resid_pre"), progress=False, memory_budget=100)


def test_named_sets_of_sites_are_patched_together(text_model):
    """Head sets, and two layers at once: each set is one hooked pass with all its sites."""
    model, asked = text_model(), pairs()
    sets = {
        "heads": ["z[0].h1@-1", "z[1].h2@-1", "z[1].h3@-1"],
        "two layers": ["mlp_out[0]", "mlp_out[2]"],
        "one": tv.sites("z", layer=1, pos=-1),
    }
    found = tv.patch(model, asked, sets, progress=False)
    assert found.axes == ("set",) and found.values["set"].values.tolist() == list(sets)
    assert found.provenance["engine"] == "rows"
    np.testing.assert_allclose(
        tv.patch(model, asked, sets, engine="passes", progress=False).values, found.values, atol=1e-5
    )
    tokens = asked.tokenize(model)
    for name in ("heads", "two layers"):
        held = model.capture(tokens.clean.tokens, sets[name])
        logits = model.run(tokens.corrupted.tokens, [tv.Replace(site, held[site]) for site in sets[name]])
        np.testing.assert_allclose(found.sel(set=name).values, tv.metrics.logit_diff(logits, tokens.answers), atol=1e-5)
    whole = tv.patch(model, asked, tv.sites("z", layer=1, pos=-1), over="layer", progress=False)
    np.testing.assert_allclose(found.sel(set="one").values, whole.sel(layer=1).values, atol=1e-5)


def test_adding_the_difference_once_is_replacing_and_scales_are_swept(text_model):
    model, asked, sites = text_model("gemma2"), pairs(), tv.sites("resid_pre", layer=[1, 2])
    replaced = tv.patch(model, asked, sites, progress=False)
    added = tv.patch(model, asked, sites, mode="add", scales=(0, 1, 2), over=("layer", "pos", "scale"), progress=False)
    assert added.values["scale"].values.tolist() == [0.0, 1.0, 2.0] and added.provenance["engine"] == "rows"
    np.testing.assert_allclose(added.sel(scale=1).values, replaced.values, atol=1e-5)
    nothing = np.broadcast_to(added.corrupted.values[:, None, None], (3, 2, 9))
    np.testing.assert_allclose(added.sel(scale=0).values, nothing, atol=1e-5)
    tokens = asked.tokenize(model)
    clean, base = (
        model.capture(side.tokens, "resid_pre[2]@3")["resid_pre[2]@3"] for side in (tokens.clean, tokens.corrupted)
    )
    logits = model.run(tokens.corrupted.tokens, tv.Add("resid_pre[2]@3", clean - base, 2.0))
    np.testing.assert_allclose(
        added.sel(scale=2, layer=2, pos=3).values, tv.metrics.logit_diff(logits, tokens.answers), atol=1e-5
    )
    halfway = tv.patch(model, asked, sites, mode="add", scales=[0.5], direction="noising", progress=False)
    assert halfway.axes == ("layer", "pos")


def test_sets_and_scales_are_asked_for_rightly(text_model):
    for arguments, words in (
        (dict(sites={"a": "z[0]"}, over=("layer",)), 'Sets of sites and the axis "set" come together'),
        (dict(sites="z[0]", over=("set",)), 'Sets of sites and the axis "set" come together'),
        (dict(sites={"a": []}), "No site was named"),
        (dict(sites="z[0]", over=("layer",), scales=[2]), "What is replaced has no scale"),
        (dict(sites="z[0]", over=("layer",), mode="add", scales=[1, 2]), "Several scales are swept over"),
        (dict(sites="z[0]", over=("layer",), mode="plus"), "replace, add"),
    ):
        with pytest.raises(tv.errors.TVLensError) as caught:
            tv.patch(text_model(), pairs(), progress=False, **arguments)
        assert words in str(caught.value)
