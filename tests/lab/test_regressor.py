"""A regressor behind `HookedModel`: what it predicts, that rows are hooks, and that every verb takes it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import tv_lens as tv
from tv_lens.errors import FormatError, MissingFile, PromptError, ShapeMismatch, UnknownName
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, build_network, latent_tasks
from tv_lens.lab.network import N_TRIAL_VECTORS, predictions
from tv_lens.metrics import squared_error
from tv_lens.model.untrained import untrained

FAMILY = SparseMixture.disjoint(3, rank=2, points=6)
CONFIG = NetworkConfig(dim=6, points=6, n_layers=3, n_heads=2, d_model=16, init=0.3)


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=1), CONFIG, family=FAMILY, name="tiny")


@pytest.fixture(scope="module")
def episodes():
    return FAMILY.sample(7, 0)


def test_predict_is_the_plain_forward_pass(regressor, episodes):
    plain = predictions(build_network(CONFIG, seed=1), episodes.x, episodes.y).detach()
    assert plain.std() > 0.3
    torch.testing.assert_close(regressor.predict(episodes.x, episodes.y), plain, atol=1e-5, rtol=1e-5)
    small = regressor.predict(episodes.x, episodes.y, memory_budget=100_000)
    torch.testing.assert_close(small, plain, atol=1e-5, rtol=1e-5)
    last = regressor.run(regressor.encode(episodes))
    assert last.shape == (7, 1)
    torch.testing.assert_close(last[:, 0], plain[:, -1], atol=1e-5, rtol=1e-5)


def test_a_prediction_is_made_from_what_came_before(regressor, episodes):
    later = episodes.y.clone()
    later[:, 3:] += 5
    before, after = regressor.predict(episodes.x, episodes.y), regressor.predict(episodes.x, later)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().min() > 1e-4


def test_the_table_lends_and_keeps(regressor, episodes):
    before = regressor.n_ids
    regressor.predict(episodes.x, episodes.y)
    assert regressor.n_ids == before
    first, again = regressor.encode(episodes), regressor.encode(episodes)
    assert torch.equal(first.ids, again.ids) and int(first.ids.min()) >= N_TRIAL_VECTORS
    whole = regressor.encode(episodes, ends="y")
    assert torch.equal(whole.ids[:, :-1], first.ids)
    vectors = regressor.vectors_of(whole)
    assert torch.equal(vectors[:, ::2, :-1], episodes.x) and torch.equal(vectors[:, 1::2, -1], episodes.y)
    assert (vectors[:, 1::2, :-1] == 0).all() and (vectors[:, ::2, -1] == 0).all()


def test_every_component_can_be_written(regressor):
    absent = [
        name
        for name in tv.model.COMPONENTS
        for layer in range(3)
        if not regressor.registry.support(tv.Site(name, layer if tv.model.COMPONENTS[name].layered else None)).write
    ]
    assert absent == []


@pytest.mark.parametrize(
    "name, seed", [("functions", 0), ("bases4", 0), ("bases4", 1), ("bases4", 2), ("bases6", 0), ("overlapping", 0)]
)
def test_keys_of_trained_networks_can_be_written(name, seed):
    """Their first layer attends so sharply that at the last of three tokens an edit of a key was lost in rounding."""
    for step in tv.lab.checkpoint_steps(name, seed):
        trained = tv.lab.load(name, seed, step)
        assert all(trained.registry.support(tv.Site(one, layer)).write for one in "qkvz" for layer in range(4)), step


def test_streams_and_edits(regressor, episodes):
    tokens = regressor.encode(episodes)
    stream = regressor.residual_stream(tokens)
    assert stream.shape == (3, 7, 11, 16) and stream.isfinite().all()
    with regressor.intervene(tv.Zero("resid_post[2]")):
        nothing = regressor.predict(episodes.x, episodes.y)
    assert nothing.std() < 1e-6  # only the read-out's bias is left
    assert regressor.run(tokens, tv.Zero("attn_out[1]")).sub(regressor.run(tokens)).abs().min() > 1e-5


def test_rows_are_hooks(regressor, episodes):
    tokens = regressor.encode(episodes)
    rows = [
        tv.rows.Row(i, (tv.rows.PlacedEdit(tv.Zero(f"{name}[{layer}]"), (pos,)),))
        for i in range(3)
        for name in ("attn_out", "resid_pre", "mlp_out", "z")
        for layer in range(3)
        for pos in (4, 9, 10)
    ]

    def prediction(logits, index):
        return logits[:, 0]

    by_rows, by_hooks = (
        tv.rows.run_rows(regressor, tokens, rows, prediction, engine=engine).values for engine in ("rows", "passes")
    )
    torch.testing.assert_close(by_rows, by_hooks, atol=1e-5, rtol=1e-5)
    assert by_hooks.std() > 0.05


def test_patch_by_rows_and_by_hooks(regressor):
    one, other = latent_tasks(FAMILY)[:2]
    pairs = one.pairs(shots=5, n=6, other=other, seed=2)
    sweeps = [
        tv.patch(
            regressor,
            pairs,
            tv.sites("resid_pre"),
            over=("layer", "pos"),
            metric=squared_error,
            engine=engine,
            progress=False,
        )
        for engine in ("rows", "passes")
    ]
    assert sweeps[0].values.shape == (6, 3, 11) and sweeps[0].units == "squared units of y"
    torch.testing.assert_close(
        torch.tensor(sweeps[0].values.values), torch.tensor(sweeps[1].values.values), atol=1e-4, rtol=1e-4
    )
    episodes, twin = one.episodes(6, 2), pairs.corrupted.tokenize(regressor)
    expected = (regressor.run(twin.tokens)[:, 0] - episodes.y[:, 5]) ** 2
    torch.testing.assert_close(torch.tensor(sweeps[0].corrupted.values).float(), expected, atol=1e-4, rtol=1e-4)
    # the query is the same on both sides, so patching it before the first layer does nothing
    assert abs(sweeps[1].values[:, 0, -1].values - sweeps[1].corrupted.values).max() < 1e-5


def test_decodability_of_an_untrained_network_is_chance(regressor):
    found = tv.decodability(regressor, latent_tasks(FAMILY), shots=(5,), n=80, null=False, progress=False)
    assert found.classes == FAMILY.task_names and found.sweep.values.shape == (80, 3, 3, 1)
    band = found.chance_band(0.999)
    shares = found.mean()
    assert bool(((shares >= band.low - 0.02) & (shares <= band.high + 0.02)).all())
    at_answers = tv.decodability(regressor, latent_tasks(FAMILY), shots=(5,), n=20, null=False, pos="y", progress=False)
    assert at_answers.sweep.provenance["pos"] == "y"


def test_an_untrained_regressor_begins_as_a_training_would_and_reads_the_same_ids(regressor):
    episodes = FAMILY.sample(4)
    ids = regressor.encode(episodes)
    twin = untrained(regressor, seed=5)
    begun = Regressor(build_network(regressor.config, 5, "eager"), regressor.config)
    torch.testing.assert_close(twin.predict(episodes.x, episodes.y), begun.predict(episodes.x, episodes.y))
    torch.testing.assert_close(twin.run(ids), begun.run(begun.encode(episodes)))
    found = tv.decodability(regressor, latent_tasks(FAMILY), shots=(5,), n=12, k=3, null=False, progress=False)
    assert found.untrained is not None and "GPT2LMHeadModel begins with" in found.sweep.provenance["untrained"]


def test_extract_and_discover(regressor):
    one, other = latent_tasks(FAMILY)[:2]
    vector = tv.extract(regressor, one, method=tv.methods.ResidualMean(layer=1, shots=5, contexts=20), progress=False)
    prompts = one.prompts(5, 20, seed=0, split="train")
    stream = regressor.residual_stream(prompts.tokenize(regressor).tokens)[1, :, -1]
    torch.testing.assert_close(vector.direction, stream.mean(0), atol=1e-4, rtol=1e-4)

    pairs = one.pairs(shots=2, n=3, other=other)
    scores = tv.discover(regressor, pairs, metric=squared_error, progress=False)
    clean = pairs.clean.tokenize(regressor)
    torch.testing.assert_close(
        scores.clean, (regressor.run(clean.tokens)[:, 0] - clean.answers.number) ** 2, atol=1e-4, rtol=1e-4
    )
    assert scores.n == 3 and float(scores.values.nan_to_num().abs().max()) > 1e-3
    decoding = tv.discover(regressor, one.prompts(5, 3), source=vector.replace(), metric=squared_error, progress=False)
    assert float(decoding.values.nan_to_num().abs().max()) > 1e-3


def test_saved_and_loaded(regressor, episodes, tmp_path):
    again = tv.lab.load(regressor.save(tmp_path / "kept"), device="cpu")
    assert torch.equal(again.predict(episodes.x, episodes.y), regressor.predict(episodes.x, episodes.y))
    assert (again.fingerprint, again.family, again.config) == (regressor.fingerprint, FAMILY, CONFIG)
    (tmp_path / "folder").mkdir()
    assert regressor.save(tmp_path / "folder") == tmp_path / "folder" / "network.safetensors"
    assert tv.lab.load(tmp_path / "folder", device="cpu").fingerprint == regressor.fingerprint
    (tmp_path / "kept").write_bytes(b"no weights")
    with pytest.raises(FormatError, match="damaged, or it holds no regressor"):
        tv.lab.load(tmp_path / "kept")
    with pytest.raises(MissingFile):
        tv.lab.load(tmp_path / "nowhere")


def test_one_of_version_0_1_opens_with_a_word(regressor, tmp_path):
    """Two files in a folder: the weights, and their description as JSON."""
    about = {"format": "tv_lens.regressor", "network": CONFIG.to_json(), "step": 3, "name": "old", "family": None}
    (tmp_path / "config.json").write_text(json.dumps(about))
    weights = {name: value.contiguous() for name, value in regressor._weights.items()}
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    with pytest.warns(UserWarning, match=r"was written by an earlier tv_lens; .* by regressor.save\(path\)"):
        again = tv.lab.load(tmp_path, device="cpu")
    assert (again.fingerprint, again.step, again.name) == (regressor.fingerprint, 3, "old")
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(FormatError, match="damaged, or it holds no regressor"):
        tv.lab.load(tmp_path)


def test_a_description_of_a_larger_network_is_refused_before_it_takes_memory(regressor):
    large = replace(CONFIG, n_layers=10**9)
    with pytest.raises(ShapeMismatch, match="not those of this network"):
        Regressor.of(regressor._weights, large)


def test_what_does_not_fit(regressor, episodes):
    with pytest.raises(ShapeMismatch, match="do not fit the network"):
        regressor.predict(episodes.x[..., :4], episodes.y)
    long = FAMILY.__class__.disjoint(3, rank=2, points=9).sample(2)
    with pytest.raises(PromptError, match="longer than the model's context"):
        regressor.predict(long.x, long.y)
    with pytest.raises(UnknownName, match="end of an episode"):
        regressor.encode(episodes, ends="z")
