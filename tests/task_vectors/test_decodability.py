"""Task decodability against its definition, at chance without training, and resumed where it was killed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, ModelLoadError, PositionError, SiteError, UnknownName
from tv_lens.model.untrained import untrained
from tv_lens.site import Site
from tv_lens.task_vectors import decodability as module
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import CONTROLS, UNTRAINED
from tv_lens.task_vectors.neighbours import leave_one_out
from tv_lens.task_vectors.representations import classes_of, draw, read
from tv_lens.tasks import Task, family


def counting(model, monkeypatch) -> list:
    """The batches of every pass from now on."""
    ran, forward = [], model.forward

    def noted(batch, *arguments, **options):
        ran.append(batch)
        return forward(batch, *arguments, **options)

    monkeypatch.setattr(model, "forward", noted)
    return ran


@pytest.mark.parametrize("name", ["gpt2", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_an_untrained_network_scores_chance_in_every_class(models, name):
    """Four names of one task: nothing tells the classes apart, so only ties and draws could favour one."""
    one = tiny_characters.pairings(1)[0]
    classes = {f"name-{i}": one for i in range(4)}
    runs = [decodability(models(name), classes, shots=(0, 1, 4), n=40, null=False, seed=seed) for seed in range(4)]
    shares = np.stack([run.mean().values for run in runs])  # run layer task shots
    shuffled = np.stack([run.shuffles.values.values for run in runs], axis=1)  # deal run layer task shots
    off = (shares - shuffled.mean(axis=0)) / shuffled.std(axis=0)
    assert np.abs(off).max() < 4  # in every class of every run
    assert np.abs(off.mean(axis=(0, 1, 3))).max() < 1.5
    assert np.abs(shares.mean(axis=(0, 1, 3)) - 0.25).max() < 0.06
    assert np.abs(shuffled.mean(axis=(0, 1, 2, 4)) - 0.25).max() < 0.02


def test_tasks_that_demonstrations_give_away_are_named(found):
    assert found.mean().sel(shots=0).max() < 0.6
    tasks = found.over_tasks().mean()
    assert float(tasks.sel(shots=4).max()) > 0.7
    controls = found.controls.sel(task=list(found.tasks)).mean().mean("task")
    assert float(controls.sel(control="surface tokens", shots=4)) > 0.95
    assert float(controls.sel(control="surface characters", shots=4)) > 0.95
    for name in ("label shuffle", "embedding"):
        assert np.abs(controls.sel(control=name).values - 0.25).max() < 0.15


def test_the_definition_taken_literally(model, found):
    """Prompt by prompt, on whole texts, with neighbours and votes in plain Python."""
    classes, _ = classes_of(tiny_characters.telling(3), null=True)
    points = draw(model, classes, shots=1, n=30)
    vectors = torch.stack([model.residual_stream(text)[1, 0, -1] for text in points.texts]).double()
    labels = points.labels.tolist()
    agree = decided = 0
    for i, vector in enumerate(vectors):
        far = (vectors - vector).norm(dim=1)
        far[i] = torch.inf
        order = far.argsort().tolist()
        if far[order[4]] >= far[order[5]] - 1e-4:
            continue  # points at equal distance compete for the last place
        votes: dict[int, list[float]] = {}
        for j in order[:5]:
            votes.setdefault(labels[j], []).append(float(far[j]))
        ranked = sorted(votes, key=lambda label: (-len(votes[label]), sum(votes[label])))
        hit = found.sweep.values.sel(layer=1, shots=1).values.T.reshape(-1)[i]
        agree += bool(hit) == (ranked[0] == labels[i])
        decided += 1
    assert decided > 60 and agree == decided


def test_axes_and_provenance(found):
    assert found.sweep.values.dims == ("example", "layer", "task", "shots") and found.sweep.values.dtype == bool
    assert found.sweep.values.shape == (30, 3, 4, 3) and found.classes == ("tells-0", "tells-1", "tells-2", "null")
    assert found.controls.values.dims == ("example", "control", "task", "shots")
    assert tuple(found.controls.values["control"].values) == CONTROLS
    assert found.pairs.values.shape == (30, 3, 4, 4, 3)
    assert found.shuffles.values.shape == (100, 3, 4, 3) and found.shuffles.axes == found.sweep.axes
    assert found.chance == found.sweep.zero == 0.25 and found.pairs.zero == 0.5
    made = found.sweep.provenance
    assert (made["k"], made["n"], made["distance"], made["null"]) == (5, 30, "euclidean", "null")
    assert made["ties"].startswith("equal votes: the class with the smallest summed distance")
    assert made["inputs"] == "all tasks have the same inputs" and made["chance"] == 0.25
    assert set(made["tasks"]) == set(found.classes)


def test_the_model_is_left_as_it_was(model, found):
    assert model.registry.attached == ()


def test_layers_chosen_give_what_all_layers_give(model, found):
    part = decodability(model, tiny_characters.telling(3), shots=4, n=30, k=5, layers=[2, 0])
    assert part.sweep.values["layer"].values.tolist() == [2, 0]
    for layer in (0, 2):
        np.testing.assert_array_equal(part.sel(layer=layer, shots=4).values, found.sel(layer=layer, shots=4).values)


@pytest.mark.parametrize("distance", ["cosine", "standardised"])
@pytest.mark.parametrize("site", ["attn_out", "z"])
def test_other_distances_and_sites(model, distance, site):
    tasks = tiny_characters.telling(2)
    part = decodability(model, tasks, shots=1, n=20, k=3, layers=1, component=site, distance=distance, null=False)
    points = draw(model, classes_of(tasks, null=False)[0], shots=1, n=20)
    vectors = read(model, points, [Site(site, 1)])[Site(site, 1)]
    assert vectors.shape == (40, 32)
    hits = leave_one_out(vectors, points.labels, 3, distance) == points.labels
    np.testing.assert_array_equal(part.sel(layer=1, shots=1).values.values.T.reshape(-1), hits.numpy())


def test_the_same_seed_gives_the_same_result(model):
    runs = [decodability(model, tiny_characters.telling(2), shots=1, n=12, k=3, seed=seed) for seed in (1, 1, 2)]
    for part in ("sweep", "controls", "pairs"):
        first, again, _other = (getattr(run, part).values.values for run in runs)
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(runs[0].controls.values.values, runs[2].controls.values.values)


def test_tasks_over_different_inputs_are_pointed_out(model):
    low, high = (
        Task(name, [(x, "1") for x in half], template=tiny_characters.TEMPLATE)
        for name, half in (("low", tiny_characters.LETTERS[:26]), ("high", tiny_characters.LETTERS[26:]))
    )
    text = repr(decodability(model, [low, high], shots=0, n=12, k=3, null=False))
    assert text.endswith("the tasks have different inputs: shots=0 shows what the query alone gives away")


def test_an_untrained_network_of_the_same_shape_reads_the_same_prompts(model, found):
    alone = decodability(untrained(model, 0), tiny_characters.telling(3), shots=(0, 1, 4), n=30, k=5, untrained=False)
    np.testing.assert_array_equal(found.untrained.values.values, alone.sweep.values.values)
    best = found.controls.sel(control=UNTRAINED).values
    np.testing.assert_array_equal(best.values, alone.sel(layer=alone.best_layer()).values.values)
    assert found.sweep.provenance["untrained"] == "weights as LlamaForCausalLM begins with, seed 0"
    assert alone.untrained is None and UNTRAINED not in alone.measured_controls
    assert "untrained network: not measured: untrained=False" in repr(alone)


def test_an_untrained_network_that_takes_too_much_memory_is_left_out_in_words(model, monkeypatch):
    monkeypatch.setattr(model, "memory_budget", 2**16)
    left_out = decodability(model, tiny_characters.telling(2), shots=1, n=12, k=3, layers=1)
    assert "more than the memory budget of 0.0 GiB; untrained=True measures it" in repr(left_out)
    asked = decodability(model, tiny_characters.telling(2), shots=1, n=12, k=3, layers=1, untrained=True)
    assert UNTRAINED in asked.measured_controls


def test_a_network_of_ones_own_stands_for_the_untrained_one(model):
    options = dict(shots=1, n=12, k=3, layers=1)
    own = decodability(model, tiny_characters.telling(2), untrained=model, **options)
    np.testing.assert_array_equal(own.untrained.values.values, own.sweep.values.values)
    with pytest.raises(ModelLoadError, match="another shape"):
        decodability(model, tiny_characters.telling(2), untrained=tiny_characters.model("gpt2"), **options)


def test_where_no_untrained_network_can_be_made_words_say_why(model, monkeypatch):
    def refused(model, seed):
        raise ModelLoadError("It cannot be made.", got="Other")

    monkeypatch.setattr(module, "untrained_network", refused)
    found = decodability(model, tiny_characters.telling(2), shots=1, n=12, k=3, layers=1)
    assert "untrained network: not measured: It cannot be made. Other" in repr(found)


def test_the_untrained_network_is_kept_in_the_folder(model, monkeypatch, tmp_path):
    options = dict(shots=(0, 1), n=12, k=3, layers=1, folder=tmp_path / "kept", progress=False)
    first = decodability(model, tiny_characters.telling(2), **options)
    monkeypatch.setattr(module, "layer_votes", None)
    again = decodability(model, tiny_characters.telling(2), **options)
    np.testing.assert_array_equal(again.untrained.values.values, first.untrained.values.values)
    np.testing.assert_array_equal(again.formats.values.values, first.formats.values.values)


def test_bad_arguments_before_anything_runs(model, monkeypatch):
    monkeypatch.setattr(model, "capture", None)
    two = tiny_characters.telling(2)
    with pytest.raises(InvalidArgument) as error:
        decodability(model, two, n=10)
    assert str(error.value) == (
        "A task's own points must be able to fill the neighbourhood.\n"
        "  got:     k=10, n=10 prompts per task\n"
        "  allowed: k from 1 to n - 1\n"
        "  do:      draw more prompts, or let fewer neighbours vote"
    )
    with pytest.raises(InvalidArgument) as error:
        decodability(model, [two[0], two[0]])
    assert str(error.value) == (
        "Two classes have the same name.\n  got:     tells-0\n  allowed: one name a class\n"
        "  do:      give {name: task} instead of a list"
    )
    with pytest.raises(EmptySelection, match="Telling tasks apart needs two of them"):
        decodability(model, two[:1], null=False)
    with pytest.raises(EmptySelection):
        decodability(model, [])
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        decodability(model, two, distance="cosin")
    with pytest.raises(InvalidArgument, match="named once each"):
        decodability(model, two, shots=(1, 1))
    with pytest.raises(InvalidArgument, match="named once each"):
        decodability(model, two, shots=())
    with pytest.raises(UnknownName, match="did you mean 'resid_post'"):
        decodability(model, two, component="resid_pots")
    with pytest.raises(SiteError, match="layers 0 to 2"):
        decodability(model, two, layers=[3])
    for site in ("pattern", "embed"):
        with pytest.raises(SiteError, match="not a vector that every layer holds"):
            decodability(model, two, component=site)
    with pytest.raises(UnknownName, match="No split"):
        decodability(model, two, split="trian", null=False)
    with pytest.raises(EmptySelection, match="too few pairs for so many demonstrations"):
        decodability(model, two, shots=90, null=False)
    with pytest.raises(PositionError, match="beyond"):
        decodability(model, two, shots=1, pos=40, null=False)
    with pytest.raises(InvalidArgument, match="no demonstration can be read"):
        decodability(model, two, shots=0, pos="y", null=False)


@pytest.mark.slow
def test_smollm2_encodes_verb_forms_in_its_middle_layers(smollm2):
    """Three forms of the same verbs and Null: chance without demonstrations, named after four, best near layer 20."""
    found = decodability(smollm2, family("verbs"), shots=(0, 1, 4), n=50)
    tasks = found.over_tasks().interval()
    best = found.best_layer()
    assert 16 <= best <= 23
    assert float(tasks["mean"].sel(shots=0).max()) < 0.35
    assert float(tasks["low"].sel(shots=1, layer=best)) > float(tasks["high"].sel(shots=1, layer=0))
    assert float(tasks["mean"].sel(shots=4, layer=best)) > 0.95


def test_decodability_from_files_is_decodability(model, tmp_path):
    tasks, options = tiny_characters.telling(3), dict(shots=(0, 2), n=12, k=3, progress=False)
    plain = tv.decodability(model, tasks, **options)
    stored = tv.decodability(model, tasks, store=tmp_path / "held", **options)
    for part in ("sweep", "controls", "pairs", "shuffles"):
        np.testing.assert_array_equal(getattr(plain, part).values.values, getattr(stored, part).values.values)


def test_a_run_killed_between_shot_counts_goes_on_in_its_run_and_its_files(model, tmp_path, monkeypatch):
    tasks, options = tiny_characters.telling(3), dict(shots=(0, 2), n=12, k=3, progress=False)
    folders = dict(folder=tmp_path / "run", store=tmp_path / "held")
    votes, calls = module.votes_of, []

    def killed(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return votes(*arguments, **named)

    monkeypatch.setattr(module, "votes_of", killed)
    with pytest.raises(KeyboardInterrupt):
        tv.decodability(model, tasks, **folders, **options)
    ran = counting(model, monkeypatch)
    found = tv.decodability(model, tasks, **folders, **options).sweep
    assert not ran and len(calls) == 3  # everything was read; one shot count's votes were missing
    plain = tv.decodability(model, tasks, **options).sweep
    np.testing.assert_array_equal(found.values.values, plain.values.values)
