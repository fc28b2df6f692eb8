"""The paper's experiments on a tiny random model: labels, statistics by hand, oracles, and resuming."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import tiny_folder
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments.language_models.checkpoints import across_models, known_revisions
from tv_lens.experiments.language_models.encoding import task_encoding
from tv_lens.experiments.language_models.finetuning import finetune_layers
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.experiments.language_models.instruction import with_instruction
from tv_lens.experiments.language_models.lora import LoRA
from tv_lens.experiments.language_models.performance import accuracies
from tv_lens.experiments.language_models.prediction import Prediction, _without, encoding_against_accuracy
from tv_lens.experiments.language_models.steering import CONDITIONS, steer, steered_exact_match
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import CONTROLS, Decodability
from tv_lens.tasks import family, task


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tv.load(tiny_folder.save(tmp_path_factory.mktemp("tiny")), name="tiny")


@pytest.fixture(scope="module")
def bits():
    return family("bitwise", width=2)[:3]


# ---------------------------------------------------------------------------------------------------------- accuracy


def test_accuracies_are_scores_cell_by_cell(model, bits):
    found = accuracies(model, bits, shots=(1, 2), queries=5, progress=False)
    assert found.values.dims == ("example", "task", "shots") and found.values.shape == (5, 3, 2)
    one = tv.score(model, bits[1].prompts(2, 5, seed=0), progress=False).exact_match
    np.testing.assert_array_equal(found.sel(task="NAND", shots=2).values.values, one.numpy())
    assert found.provenance["majority"]["AND"] == 9 / 16


def test_without_demonstrations_each_query_is_asked_once(model):
    tasks = family("bitwise", width=2)[:2]
    assert accuracies(model, tasks, shots=(0, 1), queries=50, progress=False).n == len(tasks[0].split("test"))


# ---------------------------------------------------------------------------------------------------------- encoding


def test_encoding_is_decodability_with_maps(model, bits, tmp_path):
    options = dict(shots=(0, 1), n=8, k=3, progress=False)
    found = task_encoding(model, bits, folder=tmp_path / "run", **options)
    alone = tv.decodability(model, bits, **options)
    np.testing.assert_array_equal(found.decodability.sweep.values, alone.sweep.values)
    assert found.layer == alone.best_layer() and list(found.maps) == [0, 1]
    drawn = tv.representation_map(model, bits, found.layer, shots=1, n=8, progress=False)
    np.testing.assert_array_equal(found.maps[1].points, drawn.points)
    assert found.maps[1].labels == drawn.labels and found.maps[1].explained == drawn.explained
    again = task_encoding(model, bits, folder=tmp_path / "run", **options)
    np.testing.assert_array_equal(again.maps[1].points, drawn.points)
    assert set(found.table()["shots"]) == {0, 1} and found.pairwise(1).shape == (4, 4)
    assert task_encoding(model, bits, maps=None, **options).maps == {}


# -------------------------------------------------------------------------------------------------------- prediction


def made(td: np.ndarray, acc: np.ndarray, surface: np.ndarray, n: int = 50) -> Prediction:
    """A prediction with given shares of hits over task x shots."""
    tasks, shots = [f"t{i}" for i in range(td.shape[0])], list(range(1, td.shape[1] + 1))

    def hits(shares):
        return (np.arange(n)[:, None, None] < np.round(shares * n)[None]).astype(float)

    def sweep(values, **axes):
        return Sweep(
            xr.DataArray(values, dims=("example", *axes), coords=axes),
            "m",
            "share",
            "up",
            zero=0.0,
            provenance={"model": "m", "null": None},
        )

    control = np.stack([hits(surface)] * len(CONTROLS), axis=1)
    part = sweep(hits(td)[:, None], layer=[3], task=tasks, shots=shots)
    found = Decodability(part, sweep(control, control=list(CONTROLS), task=tasks, shots=shots), part, part)
    return Prediction(found, sweep(hits(acc), task=tasks, shots=shots), 3)


def test_the_line_by_another_library():
    random = np.random.default_rng(0)
    td = np.round(random.uniform(0.1, 0.9, (6, 3)), 2)
    acc = np.round(0.2 + 0.4 * td + random.normal(0, 0.08, td.shape), 2)
    prediction = made(td, acc, np.full_like(td, 0.5), n=100)
    fit, theirs = prediction.fit(), stats.linregress(td.ravel(), acc.ravel())
    assert fit.n == 18 and fit.slope == pytest.approx(theirs.slope) and fit.intercept == pytest.approx(theirs.intercept)
    assert fit.r2 == pytest.approx(theirs.rvalue**2) and fit.r2_low < fit.r2 and fit.r2_low < fit.r2_high
    assert fit.rank == pytest.approx(stats.spearmanr(td.ravel(), acc.ravel()).statistic)
    table = prediction.points()
    assert list(table["task"][:3]) == ["t0"] * 3 and table["TD"].to_numpy() == pytest.approx(td.ravel())
    assert table["accuracy"].to_numpy() == pytest.approx(acc.ravel())


def test_what_the_surface_explains_is_removed():
    random = np.random.default_rng(1)
    surface = np.round(random.uniform(0.1, 0.9, (6, 3)), 2)
    td, acc = (np.round(surface * 0.8 + random.normal(0, 0.03, surface.shape), 2).clip(0, 1) for _ in range(2))
    prediction = made(td, acc, surface, n=100)
    assert prediction.fit().r2 > 0.9 and prediction.fit(controlled=True).r2 < 0.4
    left, right, _ = _without(td.reshape(1, -1), acc.reshape(1, -1), surface.reshape(1, -1, 1))
    design = np.stack([np.ones(18), surface.ravel()], axis=1)
    for got, was in ((left, td), (right, acc)):
        np.testing.assert_allclose(
            got[0], was.ravel() - design @ np.linalg.lstsq(design, was.ravel(), rcond=None)[0], atol=1e-12
        )


def test_intervals_hold_what_they_promise():
    """The limits over prompts cover the R2 of the shares themselves about as often as they say."""
    random = np.random.default_rng(2)
    td = random.uniform(0.2, 0.8, (6, 3))
    acc = 0.1 + 0.6 * td
    wide, narrow = (made(td, acc, np.full_like(td, 0.5), n=n).fit() for n in (20, 400))
    assert wide.r2_high - wide.r2_low > 2 * (narrow.r2_high - narrow.r2_low)
    assert narrow.slope_low <= 0.6 <= narrow.slope_high
    still = made(td, np.full_like(td, 0.5), np.full_like(td, 0.5)).fit()
    assert np.isnan(still.r2) and np.isnan(still.rank)


def test_prediction_end_to_end_and_resumed(model, bits, tmp_path):
    options = dict(shots=(1, 2), n=8, k=3, queries=4, progress=False)
    found = encoding_against_accuracy(model, bits, folder=tmp_path / "run", **options)
    assert len(found.points()) == 6 and "Prediction of 3 tasks on tiny" in repr(found)
    again = encoding_against_accuracy(model, bits, folder=tmp_path / "run", **options)
    assert again.points().equals(found.points()) and (tmp_path / "run" / "accuracy" / "manifest.json").exists()
    assert encoding_against_accuracy(model, bits, layer=1, **options).layer == 1
    with pytest.raises(InvalidArgument, match="more points"):
        encoding_against_accuracy(model, bits, shots=(1,), progress=False)


# ---------------------------------------------------------------------------------------------------------- steering


def test_rows_find_what_scoring_finds(model):
    prompts = task("present-past").prompts(2, 6, seed=0)
    random = torch.Generator().manual_seed(0)
    edits = [tv.Replace(f"resid_post[{layer}]@-1", 3 * torch.randn(32, generator=random)) for layer in (0, 1, 2)]
    answers = written_answers(model, prompts, edits[1], tokens=3, stop=None)
    # Half of the prompts ask for what the model will write under an edit, so that both outcomes occur.
    texts = [prompt.text for prompt in prompts]
    asked = tv.Prompts.from_texts(texts, [answers[i] if i < 3 and answers[i].strip() else " zz" for i in range(6)])
    found = steered_exact_match(model, asked, edits)
    slow = torch.stack([tv.score(model, asked, edit, progress=False).exact_match for edit in [(), *edits]], dim=1)
    torch.testing.assert_close(found, slow)
    assert 0 < found[:, 2].sum() < 6


def test_what_is_written_is_what_exact_match_counts(model):
    """Greedy decoding by a plain loop over whole texts of tokens, without and with an intervention that is held."""
    prompts = task("present-past").prompts(1, 4, seed=1)
    edit = tv.Replace("resid_post[1]@-1", torch.linspace(-2, 2, 32))
    tokens = prompts.tokenize(model).tokens.rows()
    for edits in ((), edit):
        written = written_answers(model, prompts, edits, tokens=4, stop=None)
        for row, text in zip(tokens, written):
            ids = list(row)
            for _ in range(4):
                held = [tv.Replace(f"resid_post[1]@{len(row) - 1}", edit.value)] if edits else []
                ids.append(int(model.run(torch.tensor(ids), held).argmax()))
            assert text == model.tokenizer.decode(ids[len(row) :], skip_special_tokens=True)
    with pytest.raises(InvalidArgument, match="at least one token"):
        written_answers(model, prompts, tokens=0)


def test_steering_labels_and_controls(model, bits, tmp_path):
    options = dict(layers=[1, 0], shots=1, queries=3, contexts=4, replicates=2, progress=False)
    found = steer(model, bits, folder=tmp_path / "run", **options)
    assert found.sweep.values.dims == ("example", "condition", "layer", "task")
    assert found.sweep.values["condition"].values.tolist() == list(CONDITIONS)
    assert found.sweep.values["layer"].values.tolist() == [0, 1] and found.effects().axes == (
        "condition",
        "layer",
        "task",
    )
    method = tv.ResidualMean(layer=1, shots=1, contexts=4)
    prompts = bits[0].prompts(1, 3, seed=0, split="test")
    vectors = {"own": bits[0], "other": bits[1], "null": tv.tasks.null(bits)}
    for condition, one in vectors.items():
        shares = [
            tv.score(
                model, prompts, method.extract(model, one, seed=seed, progress=False).replace(), progress=False
            ).exact_match
            for seed in (0, 1)
        ]
        mine = found.sweep.sel(condition=condition, layer=1, task="AND").values.values
        np.testing.assert_allclose(mine, torch.stack(shares).mean(0).numpy())
    again = steer(model, bits, folder=tmp_path / "run", **options)
    np.testing.assert_array_equal(again.sweep.values, found.sweep.values)
    assert "Steering at layer" in repr(found)
    with pytest.raises(InvalidArgument, match="two tasks"):
        steer(model, bits[:1], progress=False)


# --------------------------------------------------------------------------------------------------------- prompting


def test_instructions_with_their_control(model, bits):
    found = with_instruction(model, bits, shots=(1, 2), n=6, k=2, queries=3, layers=[2], progress=False)
    assert found.accuracy.values.dims[0] == "example" and "condition" in found.accuracy.axes
    table = found.table()
    assert list(table["condition"]) == ["demonstrations"] * 2 + ["instruction"] * 2
    assert "TD at layer 0" in table and table["TD"].between(0, 1).all()
    told = with_instruction(
        model, [one.instructed() for one in bits], shots=(1, 2), n=6, k=2, queries=3, layers=[2], progress=False
    )
    assert told.table().equals(table)
    with pytest.raises(InvalidArgument, match="has no instruction"):
        with_instruction(model, ["present-past", "present-third"], shots=(1, 2), n=6, queries=2, k=2, progress=False)


# ------------------------------------------------------------------------------------------- checkpoints and models


def test_several_models_and_one_that_is_missing(model, tmp_path):
    other = tiny_folder.save(tmp_path / "checkpoint-30", seed=1)
    bits = family("bitwise", width=2)[:2]
    options = dict(shots=(1, 2), n=6, k=2, queries=3, progress=False)
    found = across_models([model, tmp_path / "checkpoint-20", other], {"two": bits}, folder=tmp_path / "run", **options)
    assert found.sources == ("tiny", str(other)) and list(found.failed) == [str(tmp_path / "checkpoint-20")]
    assert (
        "checkpoint-20" in found.failed[str(tmp_path / "checkpoint-20")]
        or found.failed[str(tmp_path / "checkpoint-20")]
    )
    table = found.table()
    assert list(table["shots"]) == [1, 2, 1, 2] and table["step"].iloc[2] == 30
    alone = encoding_against_accuracy(model, bits, **options)
    np.testing.assert_array_equal(found.predictions["tiny"]["two"].points()["TD"], alone.points()["TD"])
    assert found.accuracy("two").values.dims == ("example", "source", "shots")
    np.testing.assert_allclose(
        found.decodability("two").mean().sel(source="tiny", shots=1),
        table[(table["source"] == "tiny") & (table["shots"] == 1)]["TD"],
    )
    assert ("failed: " in repr(found) and -1 <= found.correlation("two") <= 1) or np.isnan(found.correlation("two"))
    with pytest.raises(EmptySelection, match="None of the models"):
        across_models([tmp_path / "none"], {"two": bits}, **options)


def test_known_revisions():
    with pytest.raises(UnknownName):
        known_revisions("EleutherAI/pythia-70m", [3])
    with pytest.raises(UnknownName, match="known revisions"):
        known_revisions("gpt2", [1])


# -------------------------------------------------------------------------------------------------------- finetuning


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuning")
    source = tiny_folder.save(folder / "model")
    method = LoRA(rank=4, steps=4, every=2, batch=4, lr=1e-2)
    options = dict(first=1, last=1, method=method, shots=1, n=6, k=2, queries=4, progress=False)
    return (
        source,
        options,
        finetune_layers(
            source, family("bitwise", width=2)[:2], folder=folder / "run", checkpoints=folder / "saved", **options
        ),
        folder,
    )


def test_finetuning_touches_the_chosen_layers_alone(finetuned):
    source, _, found, folder = finetuned
    names = ["pretrained", "first 1 layers", "last 1 layers"]
    assert list(found.predictions) == names and found.layers == dict(zip(names, ([], [0], [2])))
    before = tv.load(source).tl.original_model.state_dict()
    for name, layer in (("first-1-layers", 0), ("last-1-layers", 2)):
        after = tv.load(folder / "saved" / name / "checkpoint-4").tl.original_model.state_dict()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved and all(f".{layer}." in key for key in moved)
    # A representation below the tuned layers cannot change, nor can its decodability.
    for layer in (0, 1):
        hits = [
            found.predictions[name].decodability.sel(layer=layer).values.values
            for name in ("pretrained", "last 1 layers")
        ]
        np.testing.assert_array_equal(*hits)
    assert list(found.table()["model"]) == names and all(len(losses) == 2 for losses in found.losses.values())


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(finetuned, tmp_path):
    source, options, found, folder = finetuned
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    for name in ("first-1-layers", "last-1-layers"):
        (run / name / "training" / "shards" / "00001.npz").unlink()  # killed after the first stretch
    again = finetune_layers(source, family("bitwise", width=2)[:2], folder=run, **options)
    assert again.losses == found.losses
    states = [np.load(base / "first-1-layers" / "training" / "shards" / "00001.npz") for base in (run, folder / "run")]
    for key in states[0].files:
        np.testing.assert_array_equal(states[0][key], states[1][key])


def test_training_learns_what_it_is_shown(tmp_path):
    """Forty steps on two tasks of two answers each bring the loss on their answers down."""
    same = [
        tv.Task(name, [(f"{a}{b}", words[a in "abc"]) for a in "abcdef" for b in "uvw"])
        for name, words in (("up", ("zz", "qq")), ("also", ("xx", "yy")))
    ]
    method = LoRA(rank=8, steps=40, every=20, batch=4, lr=1e-2, dropout=0.0)
    found = finetune_layers(
        tiny_folder.save(tmp_path / "m"),
        same,
        first=2,
        last=2,
        method=method,
        shots=1,
        n=4,
        k=2,
        queries=4,
        progress=False,
    )
    for losses in found.losses.values():
        assert losses[1] < 0.85 * losses[0]


def test_finetuning_that_cannot_be(model):
    bits = family("bitwise", width=2)[:2]
    with pytest.raises(InvalidArgument, match="starts from weights"):
        finetune_layers(model, bits)
    with pytest.raises(InvalidArgument, match="at least 1"):
        LoRA(steps=0)


def test_what_was_measured_is_not_measured_again(model, bits):
    options = dict(n=6, k=2, queries=3, layers=[0, 2], progress=False)
    known = encoding_against_accuracy(model, bits, shots=(1, 2), **options)
    part = known.at_shots(2)
    assert (
        part.points().equals(known.points()[known.points()["shots"] == 2].reset_index(drop=True))
        or part.layer != known.layer
    )
    with pytest.raises(InvalidArgument, match="more points"):
        encoding_against_accuracy(model, bits, shots=(2,), **options)
    six = family("bitwise", width=2)
    found = with_instruction(
        model,
        six,
        shots=(2,),
        plain=encoding_against_accuracy(model, six, shots=(1, 2), **options).at_shots(2),
        **options,
    )
    alone = with_instruction(model, six, shots=(2,), **options)
    assert found.table().equals(alone.table())
