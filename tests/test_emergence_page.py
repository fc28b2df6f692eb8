"""The page of `emergence` and its figures: what is drawn is what the sweeps hold, and claims follow the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import tiny_emergence
from tiny_emergence import BAYES, LAYERS, STEPS
from tv_lens.errors import EmptySelection, InvalidArgument, ShapeMismatch
from tv_lens.experiments.training.claims import claims_of, claims_over
from tv_lens.experiments.training.figures import by_layer, gains, over_runs, training_view
from tv_lens.experiments.training.findings import Findings, kind_of
from tv_lens.experiments.training.page import emergence_page, index_page, write_page
from tv_lens.viz import plot, theme
from tv_lens.viz.training_view import TrainingView


@pytest.fixture(scope="module")
def run():
    return tiny_emergence.emergence()


@pytest.fixture(scope="module")
def found(run):
    return Findings(run)


@pytest.fixture(scope="module")
def claims(found):
    return {one.claim: one for one in claims_of(found)}


# ------------------------------------------------------------------------------------------------------- scrubber


def state(figure, i: int) -> dict[int, dict[str, list]]:
    """What the slider sets at its i-th notch: trace -> its x and y."""
    new, moved = figure.plotly.layout.sliders[0].steps[i].args
    return {trace: {axis: new[axis][j] for axis in "xy"} for j, trace in enumerate(moved)}


def test_every_notch_shows_the_numbers_of_its_checkpoint(run):
    figure = plot(run)
    traces, notches = figure.plotly.data, figure.plotly.layout.sliders[0].steps
    assert [notch.label for notch in notches] == [str(step) for step in STEPS]
    assert {notch.method for notch in notches} == {"restyle"}
    td, mse = run.td.sel(shots=run.shots), run.mse()
    bounds = td.interval()
    for i, step in enumerate(STEPS):
        shown = state(figure, i)
        lines = [(j, traces[j]) for j in shown]
        (cursor,) = [j for j, trace in lines if trace.mode == "lines" and trace.fill is None]
        assert shown[cursor]["x"] == [theme.step_places(STEPS)[i]] * 2
        (dots,) = [j for j, trace in lines if trace.mode == "markers" and trace.name is None]
        np.testing.assert_allclose(shown[dots]["y"], mse.sel(step=step).mean().values, atol=1e-4)
        for token, axis in (("x", "x3"), ("y", "x4")):
            for task in run.tasks:
                (curve,) = [j for j, t in lines if t.name == task and t.mode == "lines+markers" and t.xaxis == axis]
                assert shown[curve]["x"] == list(LAYERS)
                np.testing.assert_allclose(
                    shown[curve]["y"], td.sel(step=step, token=token, task=task).mean().values, atol=1e-4
                )
                (band,) = [j for j, t in lines if t.name == task and t.fill == "toself" and t.xaxis == axis]
                here = bounds.sel(step=step, token=token, task=task)
                np.testing.assert_allclose(
                    shown[band]["y"], [*here["high"].values, *here["low"].values[::-1]], atol=1e-4
                )
        for kind, axis in (("pca", "x2"), ("class means", "x5")):
            points = run.maps[kind].points.sel(step=step)
            for task in run.tasks:
                (cloud,) = [j for j, t in lines if t.name == task and t.mode == "markers" and t.xaxis == axis]
                mine = points[{"point": points["task"].values == task}]
                np.testing.assert_allclose(np.stack([shown[cloud]["x"], shown[cloud]["y"]], -1), mine.values, atol=5e-4)


def test_it_opens_at_the_last_checkpoint_with_fixed_axes_and_one_legend(run):
    figure = plot(run)
    last = state(figure, len(STEPS) - 1)
    for trace, shown in last.items():
        for axis in "xy":
            np.testing.assert_allclose(np.array(figure.plotly.data[trace][axis], float), shown[axis])
    assert figure.plotly.layout.sliders[0].active == len(STEPS) - 1
    for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4", "xaxis5"):
        assert figure.plotly.layout[name].range is not None and figure.plotly.layout["y" + name[1:]].range is not None
    for kind, axis in (("pca", "axis2"), ("class means", "axis5")):
        points = run.maps[kind].points.values
        for i, which in enumerate("xy"):
            low, high = figure.plotly.layout[which + axis].range
            assert low < points[..., i].min() and high > points[..., i].max()
    legend = [trace.name for trace in figure.plotly.data if trace.showlegend is not False]
    assert legend == list(run.tasks)
    texts = [note.text for note in figure.plotly.layout.annotations]
    assert {"Map: PCA of all checkpoints", "Decodability at the y-token"} <= set(texts)
    for name in ("zero", "blind ridge", "Bayes mixture", "oracle basis", "chance 0.25", "ceiling 1.00"):
        assert any(text.startswith(name) for text in texts), name


def test_the_whole_figure_is_light_and_knows_the_dark(run):
    figure = plot(run)
    payload = figure.payload()
    assert len(payload) < 200_000 and "bdata" not in json.dumps(json.loads(payload)["layout"])
    colours = set(re.findall(r"#[0-9a-f]{6}|rgba\([^)]*[1-9]\)", payload))
    assert colours and colours <= set(theme.swap_table())


def test_a_view_without_maps_or_ceiling_and_with_one(run):
    view = training_view(run)
    bare = TrainingView("bare", view.loss, view.td, view.chance)
    drawn = plot(bare).plotly
    assert "xaxis4" not in drawn.layout and len(drawn.data) == 2 * 4 + 2 + 2 * 2 * 4
    assert not any("ceiling" in note.text for note in drawn.layout.annotations)
    alone = TrainingView("alone", view.loss, view.td, view.chance, maps=dict(list(view.maps.items())[:1]))
    assert plot(alone).plotly.layout.sliders[0].active == 5 and "alone" in repr(alone)


def test_other_checkpoints_are_refused(run):
    view = training_view(run)
    with pytest.raises(ShapeMismatch, match="td has other checkpoints"):
        TrainingView("odd", view.loss, view.td.isel(step=[0, 1, 2]), 0.25)


def test_a_map_alone_has_its_slider(run):
    one = run.maps["pca"]
    figure = plot(one)
    for i, step in enumerate(STEPS):
        shown = state(figure, i)
        points = one.points.sel(step=step)
        for j, task in enumerate(run.tasks):
            mine = points[{"point": points["task"].values == task}].values
            np.testing.assert_allclose(np.stack([shown[j]["x"], shown[j]["y"]], -1), mine, atol=5e-4)
    assert "80% of the variance" in figure.subtitle


# --------------------------------------------------------------------------------------------------- other figures


def test_steps_stand_on_a_logarithmic_axis_with_zero_before_the_first(run):
    figure = plot(run.mse())
    axis = figure.plotly.layout.xaxis
    assert axis.type == "log" and axis.ticktext[0] == "0" and axis.tickvals[0] == 5.0
    curve = figure.plotly.data[1]
    assert list(curve.x) == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0] and curve.customdata[0][3] == "0"
    marked = plot(run.mse(), mark=40).plotly
    assert marked.layout.shapes[-1].x0 == 40 and marked.layout.annotations[-1].x == pytest.approx(np.log10(40))


def test_gains_are_zero_without_telling_tasks_apart_and_one_as_the_bayesian(run):
    sweep = gains(run)
    loss, references = run.mse().mean(), run.references.average("shots").mean()
    blind, bayes = (references.sel(reference=name).values for name in ("blind ridge", "Bayes mixture"))
    np.testing.assert_allclose(
        sweep.mean().sel(curve="loss").values, (blind - loss.values) / (blind - bayes), rtol=1e-6
    )
    td = run.td_curve(**run.best()).mean()
    np.testing.assert_allclose(sweep.mean().sel(curve="decodability").values, (td.values - 0.25) / 0.75, rtol=1e-6)
    with pytest.raises(InvalidArgument, match="best possible loss"):
        gains(tiny_emergence.emergence("functions"))


def test_decodability_by_layer_has_a_panel_a_task_and_a_curve_a_checkpoint(run):
    figure = plot(by_layer(run, [0, 160], "y"))
    named = [trace for trace in figure.plotly.data if trace.mode == "lines+markers"]
    assert len(named) == 2 * len(run.tasks) and named[0].name == "training step 0"
    found = run.td.sel(step=160, shots=4, token="y", task="basis 0").mean().values
    np.testing.assert_allclose(named[1].y, found, atol=1e-6)
    assert [note.text for note in figure.plotly.layout.annotations[:4]] == list(run.tasks)


def test_seeds_side_by_side_only_at_the_same_checkpoints(run):
    other = tiny_emergence.emergence(seed=1)
    sweep = over_runs([run, other], "loss")
    assert sweep.values.sizes["seed"] == 2 and sweep.values["seed"].values.tolist() == [0, 1]
    np.testing.assert_allclose(sweep.sel(seed=1).mean().values, other.mse().mean().values)
    panels = plot(sweep).plotly.layout.annotations[:2]
    assert [note.text for note in panels] == ["seed 0", "seed 1"]
    shorter = replace(other, loss=other.loss.isel(step=slice(0, 4)))
    assert over_runs([run, shorter], "loss") is None


# ---------------------------------------------------------------------------------------------------------- claims


def test_what_was_put_in_is_what_the_claims_say(run, claims):
    verdicts = {name: one.verdict for name, one in claims.items()}
    staggered = claims["tasks are learnt one after another"]
    assert staggered.verdict == "agrees"
    assert staggered.ours.startswith("basis 0 at step 1") and "basis 2 at" in staggered.ours
    encoded = claims["tasks are encoded one after another"]
    assert encoded.verdict == "agrees" and re.search(r", basis 2 at .*; 5 of 6 pairs apart", encoded.ours)
    bayes = run.references.average("shots").sel(reference="Bayes mixture")
    ratio = (run.mse().isel(step=-1).mean() / bayes.mean()).values
    best = claims["at the end every task is predicted as well as can be"]
    assert best.verdict == "agrees" and f"{run.tasks[ratio.argmax()]}: {ratio.max():.2f} [" in best.ours
    assert (
        "nearest to blind ridge, at the end to Bayes mixture"
        in claims["first one regression over all coordinates, then regression with the inferred task"].ours
    )
    assert verdicts["the task can be read off the representations at the end"] in ("agrees", "undecided")
    assert "decodability's step is" in claims["loss and decodability change together"].ours
    assert verdicts["tasks separate from the middle layers on"] == "agrees"
    assert verdicts["in the end each task's own representation helps, every other one hurts"] == "agrees"
    assert (
        "replacing x-tokens instead: own 0.90"
        in claims["in the end each task's own representation helps, every other one hurts"].control
    )
    heads = claims["some heads serve one task"]
    assert heads.verdict == "agrees" and "head 1 of layer 0 for basis 0" in heads.ours
    assert heads.ours.startswith("2 of 6 heads, for 2 tasks: ")


def test_a_network_that_learns_nothing_agrees_with_nothing():
    never = tiny_emergence.emergence(change=(99, 99, 99, 99))
    verdicts = {one.claim: one.verdict for one in claims_of(Findings(never))}
    assert verdicts["at the end every task is predicted as well as can be"] == "disagrees"
    assert verdicts["the task can be read off the representations at the end"] == "disagrees"
    assert (
        verdicts["tasks are learnt one after another"] == "undecided"
        and verdicts["loss and decodability change together"] == "undecided"
    )
    assert verdicts["first one regression over all coordinates, then regression with the inferred task"] == "disagrees"
    (encoded,) = [one for one in claims_of(Findings(never)) if one.claim == "tasks are encoded one after another"]
    assert encoded.verdict == "undecided" and encoded.ours == "the decodability of 0 of 4 tasks rises"
    emergence_page(never)


def test_decodability_that_comes_late_is_told():
    late = tiny_emergence.emergence(change=(1, 1, 1, 2), lag=3)
    (claim,) = [one for one in claims_of(Findings(late)) if one.claim == "loss and decodability change together"]
    assert claim.verdict == "disagrees" and re.search(r"is [6-9]\.\d+ \[", claim.ours)


def test_bases_that_overlap_separate_by_group_only():
    run = tiny_emergence.emergence("overlapping", change=(3, 3, 3, 3))
    assert kind_of(run) == "overlapping"
    verdicts = {one.claim: one.verdict for one in claims_of(Findings(run))}
    assert verdicts["groups of bases separate"] in ("agrees", "undecided")
    assert verdicts["within a group, bases never separate"] == "agrees"
    assert "half-way only representations across clusters hurt" not in verdicts


def test_functions_of_which_one_is_not_learnt():
    found = Findings(tiny_emergence.emergence("functions"))
    told = {one.claim: one for one in claims_of(found)}
    assert told["quadratic functions are not learnt"].verdict == "agrees"
    assert told["linear, sparse linear and leaky ReLU functions are learnt"].verdict == "agrees"
    learnt = told["linear, sparse linear and leaky ReLU functions are learnt"]
    assert learnt.control == f"the best reference, ridge, leaves {BAYES:.2f}"
    assert told["representations of the families overlap"].verdict == "agrees"
    assert (
        "correlation of the heads' effects"
        in told["heads are shared by the linear families, not with the quadratic one"].ours
    )


def test_seeds_are_counted_and_coupling_is_pooled(run, found):
    together = Findings(tiny_emergence.emergence(seed=1, change=(3, 3, 3, 3)))
    (claim,) = [one for one in claims_over([found, together]) if one.claim == "tasks are learnt one after another"]
    assert claim.verdict == "agrees in 1, disagrees in 1" and "disjoint-1: " in claim.ours
    (coupled,) = [one for one in claims_over([found, together]) if one.claim == "loss and decodability change together"]
    assert "8 of 8 tasks" in coupled.ours and coupled.family == "all runs"


# ----------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "kind, words",
    [
        ("disjoint", ("Fig. 2", "Fig. 9", "Figs. 10, 11", "Fig. 7", "Fig. 17", "Bayesian")),
        ("more", ("Fig. 12", "Fig. 13", "as Fig. 7")),
        ("overlapping", ("Fig. 14", "Fig. 15", "Decodability within the group")),
        ("functions", ("Fig. 16", "Fig. 18", "quadratic functions are not learnt")),
    ],
)
def test_each_kind_of_family_has_its_page(kind, words):
    text = emergence_page(tiny_emergence.emergence(kind)).html
    for word in words:
        assert word in text
    assert "https://" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL) and "<script src" not in text
    assert "circuits: not part of this size" in text and len(text) < 4_000_000
    assert "nan" not in re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)).split()


def test_without_scripts_the_figures_say_so(run):
    assert emergence_page(run).html.count("<noscript>") >= 6


def test_seeds_share_a_page_and_other_families_do_not(run):
    text = emergence_page([run, tiny_emergence.emergence(seed=1)]).html
    assert "Seeds side by side (Fig. 8)" in text and "disjoint-1" in text
    with pytest.raises(InvalidArgument, match="of one family"):
        emergence_page([run, tiny_emergence.emergence("more")])
    with pytest.raises(EmptySelection, match="needs a run"):
        emergence_page([])


def test_the_index_leads_to_every_page(run, tmp_path):
    found = {"bases4": [Findings(run)], "functions": [Findings(tiny_emergence.emergence("functions"))]}
    path = index_page(found, {"bases4": "bases4.html", "functions": "functions.html"}).save(tmp_path / "index.html")
    text = path.read_text()
    assert '<a href="bases4.html">bases4</a>' in text and '<a href="functions.html">functions</a>' in text


def test_the_numbers_are_beside_the_page(run, tmp_path):
    path = write_page([Findings(run), Findings(tiny_emergence.emergence(seed=1))], tmp_path / "deep" / "emergence.html")
    held = json.loads(path.with_suffix(".json").read_text())
    assert [one["model"]["seed"] for one in held["runs"]] == [0, 1] and len(held["runs"][0]["claims"]) == 11
    assert path.read_text().startswith("<!doctype html>")
