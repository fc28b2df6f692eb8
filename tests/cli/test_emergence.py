"""`tv-lens emergence`: from a tiny trained network to pages, and what is refused before anything is measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from click.testing import Result

from command_line import plain, tv_lens
from tv_lens import lab
from tv_lens.experiments.training.measure import SIZES
from tv_lens.lab import embedded

MODULE = sys.modules["tv_lens.experiments.training.measure"]  # the function has its name in the package


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two seeds of a run that takes a second, and a folder of packed runs."""
    base = tmp_path_factory.mktemp("runs")
    found = []
    for seed in (0, 1):
        found.append(base / f"tiny-{seed}")
        run = lab.train(lab.preset("tiny", seed=seed, steps=20, checkpoints=4), found[-1])
        embedded.pack(run, "bases2", keep=4, command="tv-lens train", into=base / "packed")
    embedded.pack(run, "others", keep=4, into=base / "packed")
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch, folders):
    monkeypatch.setitem(
        SIZES,
        "tiny",
        replace(SIZES["tiny"], n=12, probe_episodes=16, k=3, n_label_shuffles=10, map_points=6, patch_episodes=4),
    )
    monkeypatch.setattr(embedded, "PACKED", folders[0].parent / "packed")


def ask(*arguments: object) -> Result:
    return tv_lens("emergence", *arguments)


def test_two_folders_are_two_seeds_of_one_page(folders, tmp_path):
    out = tmp_path / "out"
    found = ask("--network", folders[0], "--network", folders[1], "--size", "tiny", "--out", out)
    assert found.exit_code == 0, found.output
    numbers = json.loads((out / "emergence.json").read_text())
    assert [one["model"]["seed"] for one in numbers["runs"]] == [0, 1]
    assert f"Page: {out / 'emergence.html'}" in plain(found.stdout)
    assert "Fig. 9: loss and decodability change together:" in found.stdout
    for line in ("tiny-0: ", "tiny-1: ", "checkpoints up to step 20", "writing the page"):
        assert line in found.stderr
    assert "Seeds side by side" in (out / "emergence.html").read_text()


def test_asked_again_nothing_is_measured_again(folders, tmp_path, monkeypatch):
    options = ("--network", folders[0], "--size", "tiny", "--out", tmp_path / "out", "--folder", tmp_path / "kept")
    assert ask(*options).exit_code == 0
    first = (tmp_path / "out" / "emergence.json").read_text()
    monkeypatch.setattr(MODULE, "measured", lambda *args: pytest.fail("a checkpoint was measured again"))
    assert ask(*options).exit_code == 0
    again = json.loads((tmp_path / "out" / "emergence.json").read_text())
    assert again["by_step"] == json.loads(first)["by_step"]


def test_embedded_runs_have_a_page_each_and_an_index(tmp_path):
    out = tmp_path / "out"
    found = ask("--network", "embedded", "--size", "tiny", "--out", out)
    assert found.exit_code == 0, found.output
    assert {one.name for one in out.glob("*.html")} == {"bases2.html", "others.html", "index.html"}
    assert 'href="bases2.html"' in (out / "index.html").read_text()
    assert len(json.loads((out / "bases2.json").read_text())["runs"]) == 2


def test_one_embedded_seed(tmp_path):
    found = ask("--network", "embedded:bases2", "--network-seed", 1, "--size", "tiny", "--out", tmp_path)
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "emergence.json").read_text())["model"]["name"] == "bases2-1"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--network", "embedded:bases3"), "did you mean 'bases2'?"),
        (("--network", "embedded:bases2", "--network-seed", "7"), "allowed: 0, 1"),
        (("--network", "embedded", "--network-seed", "7"), "No embedded network was trained from this seed."),
        (("--network", "bases2"), "--network embedded or embedded:NAME"),
        (("--network", "FOLDER", "--network-seed", "1"), "holds one seed"),
        (("--network", "FOLDER", "--size", "tinny"), "did you mean 'tiny'?"),
        (("--network", "FOLDER", "--out", "FILE"), "Results are written into a folder."),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(folders, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr(MODULE, "measured", lambda *args: pytest.fail("something was measured"))
    (tmp_path / "file").write_text("")
    known = {"FOLDER": str(folders[0]), "FILE": str(tmp_path / "file")}
    found = ask(
        *(known.get(one, one) for one in arguments), *(() if "--out" in arguments else ("--out", tmp_path / "out"))
    )
    assert found.exit_code == 2 and words in plain(found.stderr) and "Traceback" not in found.stderr


def test_a_run_of_too_few_checkpoints_says_so(tmp_path):
    lab.train(lab.preset("tiny", steps=20, checkpoints=4), tmp_path / "begun", stop_after=1)
    found = ask("--network", tmp_path / "begun", "--size", "tiny", "--out", tmp_path / "out")
    assert found.exit_code == 2 and "3 or more" in found.stderr
