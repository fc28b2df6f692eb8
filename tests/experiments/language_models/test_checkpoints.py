"""The same measurement over several models and checkpoints."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

import tiny_folder
from made_up import prediction
from tv_lens.errors import EmptySelection, RunMismatch, UnknownName
from tv_lens.experiments.language_models.checkpoints import Comparison, _folder, across_models, known_revisions, step_of
from tv_lens.experiments.language_models.prediction import encoding_against_accuracy
from tv_lens.tasks import family


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


def test_within_shots_by_hand():
    """Pearson's correlation of what is left when each shot count's mean over sources is taken out of both sides."""
    shares = [(0.3, 0.2), (0.5, 0.5), (0.6, 0.4), (0.8, 0.9), (0.7, 0.6)]
    drawn = {
        f"m{i}": {"pos": prediction({1: td - 0.1, 4: td}, {1: acc / 2, 4: acc}, seed=i)}
        for i, (td, acc) in enumerate(shares)
    }
    comparison = Comparison(drawn)
    found, table = comparison.within_shots("pos"), comparison.table()
    left = table[["TD", "accuracy"]] - table.groupby("shots")[["TD", "accuracy"]].transform("mean")
    assert found.correlation == pytest.approx(stats.pearsonr(left["TD"], left["accuracy"]).statistic, abs=1e-4)
    assert comparison.correlation("pos") == found.correlation and found.sources == 5 and found.rearranged == 120
    grids = [table.pivot(index="source", columns="shots", values=side).to_numpy() for side in ("TD", "accuracy")]
    td, acc = (one - one.mean(0) for one in grids)
    each = [np.corrcoef(td.ravel(), acc[list(order)].ravel())[0, 1] for order in permutations(range(5))]
    assert found.p == pytest.approx(np.mean(np.array(each) >= found.correlation - 1e-9))
    low, high = found.over_prompts
    assert low < found.correlation < high and found.over_sources[0] < found.correlation


def test_known_revisions():
    with pytest.raises(UnknownName):
        known_revisions("EleutherAI/pythia-70m", [3])
    with pytest.raises(UnknownName, match="known revisions"):
        known_revisions("gpt2", [1])


def test_a_step_that_was_not_published_is_named():
    names = known_revisions("EleutherAI/pythia-70m", [512, 143000])
    assert names == ["EleutherAI/pythia-70m@step512", "EleutherAI/pythia-70m@step143000"]
    assert known_revisions("allenai/OLMo-7B", [500_000]) == ["allenai/OLMo-7B@step500000-tokens2212B"]


def test_steps_and_folders_of_names():
    assert step_of("a/b@step1000-tokens4B") == 1000 and step_of("run/checkpoint_30") == 30 and step_of("gpt2") is None
    assert _folder("/tmp/a/b") == "tmp-a-b" and _folder("a/b@step3") == "a-b-step3"


def test_a_folder_of_another_measurement_is_no_failure_of_a_model(model, bits, tmp_path):
    options = dict(shots=(1, 2), k=2, queries=2, folder=tmp_path, progress=False)
    across_models([model], {"bits": bits}, n=5, **options)
    with pytest.raises(RunMismatch):
        across_models([model], {"bits": bits}, n=6, **options)
