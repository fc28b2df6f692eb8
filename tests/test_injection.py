"""tv.vector_sweep: every cell is what scoring it alone gives; heads over tasks; how a ranking settles."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, UnknownName
from tv_lens.task_vectors.ranking import ranked_heads

PAIRING, OTHER = tiny_characters.pairings(2)
SMALL = tv.FunctionVector(layer=1, heads=3, shots=3, contexts=4, prompts=6, dev=4)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def vector(model):
    return tv.extract(model, PAIRING, method=tv.ResidualMean(layer=1, shots=3, contexts=3), progress=False)


# ---- sweeps of a vector -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_every_cell_is_one_pass_with_the_vector_there(mode, model, vector):
    found = tv.vector_sweep(
        model, vector, PAIRING, over=("pos", "layer", "scale"), scales=(0.5, 2), mode=mode, n=3, progress=False
    )
    assert found.axes == ("pos", "layer", "scale") and found.provenance["engine"] == "rows"
    assert found.values["pos"].values.tolist() == [-2, -1] and found.values["scale"].values.tolist() == [0.5, 2.0]
    prompts = PAIRING.prompts(0, 3, split="test").tokenize(model)
    for layer in range(tiny.LAYERS):
        for pos in (-2, -1):
            site = tv.Site("resid_post", layer, pos=pos)
            for scale in (0.5, 2.0):
                edit = (
                    tv.Replace(site, scale * vector.direction)
                    if mode == "replace"
                    else tv.Add(site, vector.direction, scale)
                )
                alone = tv.log_prob(model.run(prompts.tokens, edit), prompts.answers)
                np.testing.assert_allclose(found.sel(layer=layer, pos=pos, scale=scale).values, alone, atol=1e-5)
    plain = tv.log_prob(model.run(prompts.tokens), prompts.answers)
    shown = PAIRING.prompts(3, 3, split="test").tokenize(model)
    np.testing.assert_allclose(found.corrupted, plain, atol=1e-5)
    np.testing.assert_allclose(found.clean, tv.log_prob(model.run(shown.tokens), shown.answers), atol=1e-5)


def test_what_is_not_swept_stays_as_the_vector_has_it(model, vector):
    by_layer = tv.vector_sweep(model, vector, PAIRING, over="layer", n=3, progress=False)
    by_scale = tv.vector_sweep(model, vector, PAIRING, over="scale", scales=(1,), n=3, progress=False)
    np.testing.assert_allclose(by_layer.sel(layer=1).values, by_scale.sel(scale=1.0).values, atol=1e-5)
    assert by_layer.provenance["mode"] == "replace"  # as a mean of the stream is injected
    heads = tv.extract(model, PAIRING, method=SMALL, progress=False)
    assert tv.vector_sweep(model, heads, PAIRING, over="layer", n=3, progress=False).provenance["mode"] == "add"
    many = tv.ResidualMean(shots=3, contexts=3).at_layers(model, PAIRING, progress=False)
    own = tv.vector_sweep(model, many, PAIRING, over="layer", n=3, progress=False)
    np.testing.assert_allclose(own.sel(layer=1).values, by_layer.sel(layer=1).values, atol=1e-5)
    assert abs(own.sel(layer=2).values - by_layer.sel(layer=2).values).max() > 1e-3


def test_bad_sweeps_of_a_vector_are_refused(model, vector):
    many = {0: vector, 1: vector}
    for arguments, error, words in (
        (dict(over=("layr",)), UnknownName, "did you mean 'layer'"),
        (dict(over=()), InvalidArgument, "A sweep has axes"),
        (dict(over="pos", pos=(0,)), PositionError, "counted from the end"),
        (dict(over="pos", pos=(-9,)), PositionError, "-2 to -1"),
        (dict(mode="put"), UnknownName, "replace, add"),
    ):
        with pytest.raises(error) as caught:
            tv.vector_sweep(model, vector, PAIRING, n=2, progress=False, **arguments)
        assert words in str(caught.value)
    with pytest.raises(InvalidArgument, match="swept over the layer"):
        tv.vector_sweep(model, many, PAIRING, over="scale", progress=False)


# ---- heads over tasks ---------------------------------------------------------------------------------------------


def test_universal_heads_average_over_tasks(model):
    found = tv.universal_heads(model, [PAIRING, OTHER], method=SMALL, progress=False)
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
    with pytest.raises(InvalidArgument, match="two at least"):
        tv.universal_heads(model, [PAIRING, PAIRING], method=SMALL)
    with pytest.raises(InvalidArgument, match="top=13"):
        found.heads(13)


def test_random_heads_are_others_of_the_same_length(model):
    vector = tv.extract(model, PAIRING, method=SMALL, progress=False)
    controls = SMALL.own_controls(model, PAIRING, vector, 3, progress=False)["random heads"]
    chosen = {tuple(head) for head in vector.method["summed_heads"]}
    for one in controls:
        drawn = {tuple(head) for head in one.method["summed_heads"]}
        assert len(drawn) == 3 and not drawn & chosen
        assert one.norm == pytest.approx(vector.norm, rel=1e-5) and one.site == vector.site
        alone = tv.extract(
            model, PAIRING, method=tv.FunctionVector(layer=1, heads=sorted(drawn), shots=3, contexts=4), progress=False
        )
        assert one.cosine(alone) == pytest.approx(1, abs=1e-5)
    assert len({tuple(map(tuple, one.method["summed_heads"])) for one in controls}) == 3
    found = tv.evaluate(model, vector, PAIRING, n=4, other=OTHER, n_random=3, score_by="log_prob", progress=False)
    alone = np.mean(
        [tv.score(model, PAIRING.queries(4), one.add(), progress=False).log_prob.numpy() for one in controls], axis=0
    )
    np.testing.assert_allclose(found.values.sel(condition="random heads"), alone, atol=1e-5)


def test_controls_are_not_ranked_again(model, monkeypatch):
    vector = tv.extract(model, PAIRING, method=SMALL, progress=False)
    monkeypatch.setattr(tv.FunctionVector, "_effects", lambda *args: pytest.fail("effects were measured"))
    tv.evaluate(model, vector, PAIRING, n=2, other=OTHER, n_random=1, progress=False)


# ---- how a ranking settles ----------------------------------------------------------------------------------------


def made_up(values, groups=None) -> tv.Sweep:
    coords = {} if groups is None else {"group": ("example", groups)}
    array = xr.DataArray(np.asarray(values, float), dims=("example", "layer", "head"), coords=coords)
    return tv.Sweep(array, metric="indirect_effect", units="probability", sign="above 0: more probable")


def test_a_ranking_without_noise_settles_at_once_and_pure_noise_never():
    heads, random = np.arange(40.0).reshape(4, 10), np.random.default_rng(0)
    sure = tv.ranking_stability(made_up(np.repeat(heads[None], 12, 0) + random.normal(0, 1e-6, (12, 4, 10))), top=5)
    assert sure.axes == ("prompts", "score") and np.nanmin(sure.values) == pytest.approx(1)
    noise = tv.ranking_stability(made_up(random.normal(size=(24, 4, 10))), top=5)
    halves = noise.mean().sel(score="halves: rank correlation", prompts=12)
    assert abs(float(halves)) < 0.2
    shared = noise.mean().sel(score="halves: top heads shared", prompts=12)
    assert abs(float(shared) - 5 / 40) < 0.1
    assert float(noise.mean().sel(score="all: rank correlation", prompts=24)) == pytest.approx(1)


def test_more_queries_settle_it_more_and_limits_are_the_spread_of_draws():
    random = np.random.default_rng(1)
    effects = made_up(np.linspace(0, 1, 40).reshape(4, 10) + random.normal(0, 1, (60, 4, 10)))
    found = tv.ranking_stability(effects, sizes=(2, 8, 30), draws=300)
    curve = found.mean().sel(score="halves: rank correlation").values
    assert curve[0] < curve[1] < curve[2]
    # Spearman-Brown by hand: with reliability r of one query, s of them have s r / (1 + (s - 1) r).
    one = curve[1] / (8 - 7 * curve[1])
    assert curve[2] == pytest.approx(30 * one / (1 + 29 * one), abs=0.08)
    limits, cell = found.interval(0.9), dict(prompts=8, score="all: rank correlation")
    inside = (found.values.sel(cell) >= limits["low"].sel(cell)) & (found.values.sel(cell) <= limits["high"].sel(cell))
    assert float(inside.mean()) == pytest.approx(0.9, abs=0.02)
    more = tv.ranking_stability(effects, sizes=(8,), draws=3000).interval(0.9)
    width = lambda one: float((one["high"] - one["low"]).sel(prompts=8, score="all: rank correlation"))  # noqa: E731
    assert width(more) == pytest.approx(width(limits), rel=0.25)  # more draws do not narrow it
    figure = tv.plot(found)
    assert "300 draws" in figure.subtitle and "95% of single draws" in figure.subtitle


def test_a_query_that_comes_again_counts_once():
    values = np.random.default_rng(0).normal(size=(6, 2, 3))
    found = tv.ranking_stability(made_up(values, [0, 0, 1, 1, 2, 2]), top=2)
    assert found.values["prompts"].values.tolist() == [1, 2, 3] and found.provenance["queries"] == 3
    with pytest.raises(EmptySelection, match="over several queries"):
        tv.ranking_stability(made_up(values, [0] * 6), top=2)
    with pytest.raises(EmptySelection, match="1 to 6"):
        tv.ranking_stability(made_up(values), sizes=(7,), top=2)
    with pytest.raises(InvalidArgument, match="top=9"):
        tv.ranking_stability(made_up(values), top=9)
    assert ranked_heads(made_up(values)) == [
        tuple(head) for head in tv.head_ranking(made_up(values), top=2)[["layer", "head"]].values
    ]
