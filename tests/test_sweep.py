"""Sweeps: labels, statistics, ratios, files and messages."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from tv_lens.errors import (
    EmptySelection,
    FormatError,
    InvalidArgument,
    NonFiniteMetric,
    PositionError,
    ShapeMismatch,
    UnknownName,
)
from tv_lens.results.bootstrap import ratio_interval
from tv_lens.results.sweep import Sweep, concat

TOKENS = ["Q", ":", " go", "\n", "A", ":"]


def make(n: int = 20, layers: int = 4, seed: int = 0, **options) -> Sweep:
    random = np.random.default_rng(seed)
    corrupted, clean = random.normal(-3, 1, n), random.normal(4, 1, n)
    share = np.linspace(0, 1, layers)[:, None] * np.linspace(0.2, 1, len(TOKENS))[None]
    values = corrupted[:, None, None] + share * (clean - corrupted)[:, None, None]
    array = xr.DataArray(
        values,
        dims=("example", "layer", "pos"),
        coords={"layer": np.arange(layers), "pos": np.arange(len(TOKENS)), "token": ("pos", TOKENS)},
    )
    given = dict(
        metric="logit_diff",
        units="logits",
        sign="higher: towards the clean answer",
        clean=clean,
        corrupted=corrupted,
        provenance={"task": "toy", "seed": 0, "engine": "passes"},
        name="toy",
    )
    return Sweep(array, **{**given, **options})


def test_axes_n_and_zero():
    sweep = make()
    assert (sweep.axes, sweep.n, len(sweep), sweep.zero) == (("layer", "pos"), 20, 20, 0.0)


def test_example_is_moved_to_the_front_and_axes_get_labels():
    sweep = Sweep(xr.DataArray(np.zeros((2, 5)), dims=("layer", "example")), "prob", "probability", "up")
    assert sweep.values.dims == ("example", "layer")
    assert sweep.values["layer"].values.tolist() == [0, 1]


def test_sel_by_label_list_slice_and_token():
    sweep = make()
    assert sweep.sel(layer=2).axes == ("pos",)
    assert sweep.sel(layer=[0, 3]).values["layer"].values.tolist() == [0, 3]
    assert sweep.sel(layer=slice(1, 2)).values["layer"].values.tolist() == [1, 2]
    assert sweep.sel(token=":").values["pos"].values.tolist() == [1, 5]
    assert sweep.sel(layer=1, pos=0).mean().ndim == 0
    assert sweep.sel(layer=np.int64(1)).axes == ("pos",)


def test_isel_counts_from_the_end_and_keeps_the_example_axis():
    sweep = make()
    assert int(sweep.isel(layer=-1).values["layer"]) == 3
    one = sweep.isel(example=3)
    assert one.n == 1
    assert float(one.clean[0]) == float(sweep.clean[3])
    assert sweep.isel(example=np.arange(20) < 5).n == 5


def test_selection_errors_name_what_there_is():
    sweep = make()
    with pytest.raises(UnknownName) as raised:
        sweep.sel(layer=9)
    assert str(raised.value) == (
        "Axis 'layer' has no label 9.\n"
        "  got:     9\n"
        "  allowed: 0, 1, 2, 3\n"
        "  do:      the nearest is 3; isel(layer=-1) is the last"
    )
    with pytest.raises(UnknownName, match="did you mean 'layer'"):
        sweep.sel(layers=1)
    with pytest.raises(UnknownName, match="No axis is called 'head'"):
        sweep.isel(head=1)
    with pytest.raises(UnknownName, match="Axis 'token' has no label ' g'"):
        sweep.sel(token=" g")
    with pytest.raises(PositionError, match="no such place"):
        sweep.isel(pos=6)
    with pytest.raises(EmptySelection):
        sweep.sel(layer=[])
    with pytest.raises(UnknownName):
        sweep.sel(layer=True)  # True == 1, but it is no layer


def test_mean_is_over_examples():
    sweep = make()
    np.testing.assert_allclose(sweep.mean().values, sweep.values.values.mean(0))
    assert sweep.mean().dims == ("layer", "pos")


def test_interval_is_fixed_by_its_seed_and_holds_the_mean():
    sweep = make()
    one, two, other = sweep.interval(seed=1), sweep.interval(seed=1), sweep.interval(seed=2)
    assert one.equals(two) and not one.equals(other)
    assert bool((one["low"] <= one["mean"]).all()) and bool((one["mean"] <= one["high"]).all())
    assert (one["n"] == 20).all()
    wide, narrow = sweep.interval(level=0.99), sweep.interval(level=0.5)
    assert float((wide["high"] - wide["low"]).min()) > float((narrow["high"] - narrow["low"]).min())


def test_interval_of_a_share_matches_the_binomial():
    hits = xr.DataArray(np.arange(400) % 4 == 0, dims=("example",))
    found = Sweep(hits, "exact_match", "share", "up").interval(n_boot=4000)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert float(found["mean"]) == 0.25
    limits = [float(found["low"]), float(found["high"])]
    np.testing.assert_allclose(limits, [0.25 - half, 0.25 + half], atol=0.006)


def test_interval_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    sweep = make()
    whole = sweep.interval(n_boot=200)
    monkeypatch.setattr("tv_lens.results.bootstrap._CHUNK", 500)
    cut = sweep.interval(n_boot=200)
    np.testing.assert_allclose(whole["low"].values, cut["low"].values)
    np.testing.assert_allclose(whole["high"].values, cut["high"].values)


def test_interval_resamples_groups_together():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 10)
    array = xr.DataArray(values, dims=("example",))
    alone = Sweep(array, "m", "u", "s").interval()
    clusters = array.assign_coords(group=("example", np.repeat(list("abcdefghij"), 10)))
    grouped = Sweep(clusters, "m", "u", "s").interval()
    assert float(grouped["high"] - grouped["low"]) > 2 * float(alone["high"] - alone["low"])
    assert float(grouped["mean"]) == float(alone["mean"])


def test_interval_refuses_nonsense():
    with pytest.raises(InvalidArgument):
        make().interval(level=95.0)
    with pytest.raises(InvalidArgument):
        make().interval(n_boot=0)


def test_ratio_interval_equals_the_loop_over_indices():
    random = np.random.default_rng(0)
    above, below = random.normal(2, 1, (30, 3)), random.normal(5, 1, (30, 1))
    low, high = ratio_interval(above, below, n_boot=3000)
    draws = np.random.default_rng(1).integers(30, size=(3000, 30))
    ratios = above[draws].sum(1) / below[draws].sum(1)
    np.testing.assert_allclose(low, np.quantile(ratios, 0.025, axis=0), atol=0.02)
    np.testing.assert_allclose(high, np.quantile(ratios, 0.975, axis=0), atol=0.02)


def test_recovery_is_the_ratio_of_means():
    sweep = make()
    found = sweep.recovery()
    expected = (sweep.mean() - sweep.corrupted.mean()) / (sweep.clean.mean() - sweep.corrupted.mean())
    np.testing.assert_allclose(found.mean().values, expected.values)
    assert (found.metric, found.zero) == ("recovery of logit_diff", 0.0)
    assert found.recovery() is found
    part = found.isel(example=slice(0, 7))
    np.testing.assert_allclose(part.mean().values, sweep.isel(example=slice(0, 7)).recovery().mean().values)


def test_recovery_resamples_numerator_and_denominator_together():
    sweep = make()
    best = sweep.sel(layer=3, pos=5).recovery().interval()  # this cell is the clean run itself
    np.testing.assert_allclose([float(best["low"]), float(best["high"])], 1.0)
    first = sweep.sel(layer=0, pos=0).recovery().interval()
    np.testing.assert_allclose([float(first["low"]), float(first["high"])], 0.0, atol=1e-12)
    clean = sweep.recovery().baselines()["clean"]
    np.testing.assert_allclose([float(clean["low"]), float(clean["high"])], 1.0)


def test_recovery_needs_two_different_baselines():
    with pytest.raises(InvalidArgument, match="no corrupted baseline"):
        make(corrupted=None).recovery()
    sweep = make()
    with pytest.raises(InvalidArgument, match="do not differ on average"):
        dataclasses.replace(sweep, corrupted=sweep.clean).recovery()
    noisy = dataclasses.replace(sweep, corrupted=sweep.clean + np.where(np.arange(20) % 2, 1.0, -1.1))
    with pytest.warns(UserWarning, match="poorly determined"):
        noisy.recovery()


def test_noising_is_centred_on_the_clean_run():
    assert make(provenance={"direction": "noising"}).recovery().zero == 1.0


def test_best_over_all_and_over_one_axis():
    sweep = make()
    assert sweep.best() == {"layer": 3, "pos": 5}
    assert sweep.best("layer") == {"layer": 3}
    assert sweep.best("pos", "layer") == {"pos": 5, "layer": 3}
    assert sweep.best("layer", lowest=True) == {"layer": 0}
    assert sweep.sel(**sweep.best()).axes == ()
    flat = dataclasses.replace(sweep, values=sweep.values * 0)
    assert flat.best() == {"layer": 0, "pos": 0}
    with pytest.raises(UnknownName):
        sweep.best("layr")


def test_average_is_paired_by_example():
    sweep = make().average("pos")
    assert sweep.axes == ("layer",)
    np.testing.assert_allclose(sweep.values.values, make().values.values.mean(2))
    assert sweep.recovery().mean().dims == ("layer",)


def test_to_frame_is_tidy():
    table = make().to_frame()
    assert list(table.columns) == ["layer", "pos", "token", "mean", "low", "high", "n"]
    assert len(table) == 24 and (table["n"] == 20).all()
    assert list(table["token"][:6]) == TOKENS
    assert list(make().sel(layer=1, pos=2).to_frame()["token"]) == [" go"]


def test_missing_values_are_an_error_unless_allowed():
    values = make().values.copy()
    values[0, 1, 2] = np.nan
    with pytest.raises(NonFiniteMetric) as raised:
        Sweep(values, "logit_diff", "logits", "up")
    assert "nan at example=0, layer=1, pos=2" in str(raised.value)
    sweep = Sweep(values, "logit_diff", "logits", "up", allow_missing=True)
    assert int(sweep.interval()["n"].sel(layer=1, pos=2)) == 19
    np.testing.assert_allclose(sweep.mean().values, np.nanmean(values.values, axis=0))
    values[0, 1, 2] = np.inf
    with pytest.raises(NonFiniteMetric):
        Sweep(values, "logit_diff", "logits", "up", allow_missing=True)


def test_missing_values_leave_both_halves_of_a_recovery():
    sweep = make()
    values = sweep.values.copy()
    values[0, 3, 5] = np.nan
    found = dataclasses.replace(sweep, values=values, allow_missing=True).recovery().interval()
    np.testing.assert_allclose(float(found["mean"].sel(layer=3, pos=5)), 1.0)


def test_construction_is_checked():
    with pytest.raises((InvalidArgument, TypeError)):  # TypeError where the tests check every annotation
        Sweep(np.zeros((2, 2)), "m", "u", "s")
    with pytest.raises(InvalidArgument, match="no such axis"):
        Sweep(xr.DataArray(np.zeros(3), dims=("layer",)), "m", "u", "s")
    with pytest.raises(EmptySelection):
        Sweep(xr.DataArray(np.zeros((0, 3)), dims=("example", "layer")), "m", "u", "s")
    with pytest.raises(InvalidArgument, match="same label twice"):
        twice = xr.DataArray(np.zeros((2, 2)), dims=("example", "pos"), coords={"pos": ["a", "a"]})
        Sweep(twice, "m", "u", "s")
    with pytest.raises(ShapeMismatch, match="differ along 'example'"):
        make(clean=np.zeros(3))
    with pytest.raises(NonFiniteMetric):
        make(clean=np.full(20, np.nan))
    with pytest.raises(InvalidArgument, match="cannot be saved"):
        make(provenance={"model": object()})
    assert make(provenance={"seed": np.int64(3), "shots": (1, 4)}).provenance == {"seed": 3, "shots": [1, 4]}


@pytest.mark.parametrize("build", [make, lambda: make().recovery(), lambda: make().sel(layer=1)])
def test_save_and_load_give_the_same_sweep(tmp_path, build):
    sweep = build()
    path = sweep.save(tmp_path / "deep" / "sweep.tv")
    again = Sweep.load(path)
    assert again.interval().equals(sweep.interval())
    assert again.to_frame().equals(sweep.to_frame())
    for key in ("metric", "units", "sign", "provenance", "name", "zero"):
        assert getattr(again, key) == getattr(sweep, key)
    assert [file.name for file in path.parent.iterdir()] == ["sweep.tv"]


def test_boolean_values_stay_boolean_on_disk(tmp_path):
    sweep = Sweep(xr.DataArray(np.array([True, False]), dims=("example",)), "exact_match", "share", "up")
    assert Sweep.load(sweep.save(tmp_path / "hits")).values.dtype == bool


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = make().save(tmp_path / "sweep.tv")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match="not a sweep, or it is damaged"):
        Sweep.load(path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FormatError):
        Sweep.load(tmp_path / "text")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(FormatError):
        Sweep.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        Sweep.load(tmp_path / "absent")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = make().save(tmp_path / "sweep.tv")
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError):
        make(seed=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_concat_on_a_new_axis_keeps_each_baseline():
    one, two = make(seed=0), make(seed=1)
    both = concat([one, two], "task", ["a", "b"], name="two tasks")
    assert both.values.dims == ("example", "task", "layer", "pos")
    assert both.clean.dims == ("example", "task")
    np.testing.assert_allclose(both.recovery().sel(task="b").mean().values, two.recovery().mean().values)
    ratios = concat([one.recovery(), two.recovery()], "task", ["a", "b"])
    assert ratios.interval().equals(both.recovery().interval())


def test_concat_keeps_a_common_baseline_once_and_the_differing_provenance():
    one, two = make(), make(provenance={"task": "toy", "seed": 1})
    both = concat([one, two], "seed", [0, 1])
    assert both.clean.dims == ("example",)
    assert both.provenance["task"] == "toy"
    assert both.provenance["parts"] == [{"seed": 0, "engine": "passes"}, {"seed": 1}]
    assert both.name == "toy"


def test_concat_along_an_existing_axis_and_along_examples():
    sweep = make()
    halves = [sweep.sel(layer=slice(0, 1)), sweep.sel(layer=slice(2, 3))]
    assert concat(halves, "layer").interval().equals(sweep.interval())
    rows = concat([sweep.isel(example=slice(0, 5)), sweep.isel(example=slice(5, 20))], "example")
    assert rows.interval().equals(sweep.interval())
    assert rows.clean.values.tolist() == sweep.clean.values.tolist()
    picked = concat([sweep.sel(layer=0), sweep.sel(layer=3)], "layer")
    assert picked.values["layer"].values.tolist() == [0, 3]


def test_concat_refuses_what_does_not_fit():
    sweep = make()
    with pytest.raises(InvalidArgument, match="different metric"):
        concat([sweep, dataclasses.replace(sweep, metric="prob")], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="needs one label per sweep"):
        concat([sweep, sweep], "task")
    with pytest.raises(InvalidArgument, match="other axes or coordinates differ"):
        concat([sweep, make(n=7)], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="some have none"):
        concat([sweep, make(clean=None, corrupted=None)], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="different units"):
        concat([sweep.recovery(), sweep.recovery()], "example")
    with pytest.raises(EmptySelection):
        concat([], "task")


def test_repr_tells_the_result_at_a_glance():
    values = xr.DataArray(np.array([[1.0, 2.0], [1.0, 4.0]]), dims=("example", "layer"))
    sweep = Sweep(
        values,
        "logit_diff",
        "logits",
        "higher: clean",
        clean=np.array([5.0, 5.0]),
        provenance={"engine": "passes"},
        name="toy",
    )
    assert repr(sweep) == (
        "Sweep 'toy'\n"
        "  axes      layer 2 (0 … 1)\n"
        "  metric    logit_diff [logits]\n"
        "  sign      higher: clean\n"
        "  n         2 examples\n"
        "  largest   3 [2, 4] at layer=1\n"
        "  clean     5\n"
        "  engine    passes"
    )
    assert "<b>toy</b>" in sweep._repr_html_()
    assert "&lt;b&gt;" in dataclasses.replace(sweep, name="<b>")._repr_html_()
