"""The manifest: another configuration is refused by name, other circumstances are said, other folders left alone."""

from __future__ import annotations

import json

import pytest
import torch

import tv_lens as tv
from squares import CONFIG, files, square, truncate
from tv_lens.errors import FormatError, InvalidArgument, RunMismatch, StorageError
from tv_lens.storage import manifest
from tv_lens.storage.envelope import LIBRARIES
from tv_lens.storage.run_folder import RunFolder
from tv_lens.storage.shard_file import Shard, packed, unpacked


def test_another_configuration_is_refused_and_every_difference_is_named(tmp_path):
    square(tmp_path)
    other = {"model": {"fingerprint": "abd", "dtype": "float32"}, "seed": 1, "metric": tv.metrics.prob, "shots": 2}
    with pytest.raises(RunMismatch) as caught:
        square(tmp_path, config=other, total=5, verb="cubes")
    lines = str(caught.value).splitlines()
    assert lines[0] == "This folder was begun with another configuration: 7 differences."
    assert lines[1:3] == [f"  got:     {tmp_path}", "           verb: 'squares' in the folder, 'cubes' asked for"]
    for line in (
        "model.fingerprint: 'abc' in the folder, 'abd' asked for",
        "seed: 0 in the folder, 1 asked for",
        "metric.function: 'tv_lens.metrics.logit_diff' in the folder, 'tv_lens.metrics.prob' asked for",
        "shots: nothing in the folder, 2 asked for",
        "shards: 4 in the folder, 5 asked for",
    ):
        assert f"           {line}" in lines
    assert square(tmp_path) == [], "the folder is as it was"


def test_the_versions_are_part_of_the_configuration(tmp_path, monkeypatch):
    square(tmp_path)
    monkeypatch.setattr(manifest, "library_versions", lambda: {"torch": "0.1"})
    with pytest.raises(RunMismatch, match="versions.torch: .* in the folder, '0.1' asked for"):
        square(tmp_path)


def test_other_circumstances_are_said(tmp_path, monkeypatch):
    square(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match="other circumstances .threads: 1 in the folder, 7 asked for"):
        assert square(tmp_path) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InvalidArgument, match="holds other files") as caught:
        square(tmp_path)
    assert caught.value.got == f"{tmp_path}: thesis.tex"
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        square(tmp_path / "file")
    damaged = tmp_path / "damaged"
    square(damaged)
    (damaged / "manifest.json").write_text('{"format": ')
    with pytest.raises(FormatError, match="manifest of this run is damaged"):
        square(damaged)
    newer = json.dumps({"format": "tv_lens.run", "version": 99})
    (damaged / "manifest.json").write_text(newer)
    with pytest.raises(FormatError, match="later tv_lens"):
        square(damaged)


def test_what_is_written_is_what_is_read(tmp_path):
    assert manifest.read(tmp_path) is None and manifest.read(tmp_path / "nowhere") is None
    manifest.begin(tmp_path, "squares", CONFIG, 4)
    found = manifest.read(tmp_path)
    assert (found["format"], found["version"], found["verb"], found["total"]) == ("tv_lens.run", 2, "squares", 4)
    assert found["config"]["model"] == CONFIG["model"] and set(found["config"]["versions"]) == set(LIBRARIES)
    assert found["circumstances"] == manifest._circumstances()
    content = (tmp_path / "manifest.json").read_bytes()
    manifest.begin(tmp_path, "squares", CONFIG, 4)
    assert (tmp_path / "manifest.json").read_bytes() == content, "it is written once"


# ------------------------------------------------------------------------------------------------- a lost manifest


@pytest.mark.parametrize("claims", [True, False], ids=["claims there", "claims gone"])
def test_a_lost_manifest_is_said_and_shards_of_the_same_configuration_are_taken(claims, tmp_path):
    square(tmp_path)
    (tmp_path / "manifest.json").unlink()
    if not claims:
        (tmp_path / "claims").rmdir()
    (tmp_path / "shards" / "00002.safetensors").unlink()
    with pytest.warns(UserWarning, match=f"the run {tmp_path} has lost its manifest.json; 3 of its shards are of the"):
        assert square(tmp_path) == [2]
    assert tv.RunFolder(tmp_path).done == 4 and square(tmp_path) == []


def strip(path):
    """The shard as version 0.1 wrote it: its header says nothing of the configuration."""
    shard = unpacked(path.read_bytes(), int(path.stem))
    path.write_bytes(packed(Shard(shard.arrays, shard.about), int(path.stem)))


@pytest.mark.parametrize("seed", [0, 1], ids=["shards that do not say it", "shards of another configuration"])
def test_a_lost_manifest_with_other_shards_is_refused_and_nothing_is_written(seed, tmp_path):
    square(tmp_path)
    if seed == 0:
        strip(tmp_path / "shards" / "00003.safetensors")
    (tmp_path / "manifest.json").unlink()
    before = files(tmp_path)
    with pytest.raises(RunMismatch) as caught:
        square(tmp_path, config=CONFIG | {"seed": seed})
    name, why = ("00003", "the shard does not say what it is of") if seed == 0 else ("00000", "another digest")
    assert str(caught.value) == (
        "This folder holds shards of another configuration, and its manifest is lost.\n"
        f"  got:     {tmp_path}/shards/{name}.safetensors: {why}\n"
        "  allowed: shards of the configuration that is asked for\n"
        "  do:      put manifest.json back, or name another folder with folder=."
    )
    assert files(tmp_path) == before and manifest.read(tmp_path) is None


def test_damaged_shards_and_other_files_beside_a_lost_manifest_are_no_reason_to_refuse(tmp_path):
    square(tmp_path)
    (tmp_path / "manifest.json").unlink()
    truncate(tmp_path / "shards" / "00001.safetensors")
    (tmp_path / "shards" / "notes.safetensors").write_text("mine")
    with pytest.warns(UserWarning) as said:
        assert square(tmp_path) == [1]
    assert ["lost its manifest" in str(one.message) for one in said] == [True, False]
    assert (tmp_path / "shards" / "notes.safetensors").read_text() == "mine"


def test_the_digest_is_of_the_whole_work_and_not_of_its_order():
    one = {"verb": "squares", "total": 4, "config": {"a": 1, "b": {"c": float("nan")}}, "created": "today"}
    same = {"config": {"b": {"c": float("nan")}, "a": 1}, "total": 4, "verb": "squares", "created": "tomorrow"}
    assert manifest.digest_of(one) == manifest.digest_of(same) and len(manifest.digest_of(one)) == 32
    for other in ({"verb": "cubes"}, {"total": 5}, {"config": {"a": 1, "b": {"c": 0}}}):
        assert manifest.digest_of(one | other) != manifest.digest_of(one)


def test_files_of_shards_are_told_by_their_names_alone(tmp_path):
    (tmp_path / "shards").mkdir()
    for stem in ("00001", "123456", "1", "00002 (copy)", "٠٠٠٠٣", "x"):
        (tmp_path / "shards" / f"{stem}.safetensors").touch()
    for name in ("00001.npz", "00004.txt", "00005.npz"):
        (tmp_path / "shards" / name).touch()
    names = [path.name for path in manifest.shard_files(tmp_path)]
    assert names == ["00001.safetensors", "00005.npz", "123456.safetensors"], "of a shard in two forms, today's"
    assert manifest.shard_file(tmp_path, 7) == tmp_path / "shards" / "00007.safetensors"
    assert manifest.shard_files(tmp_path / "nowhere") == []


def test_runs_inside_are_found_at_any_depth_and_not_within_another(tmp_path):
    for name in ("b", "a/deep", "b/inner"):
        square(tmp_path / name)
    assert manifest.runs_inside(tmp_path) == [tmp_path / "a" / "deep", tmp_path / "b"]
    assert manifest.runs_inside(tmp_path / "b") == [tmp_path / "b" / "inner"]
    assert manifest.runs_inside(tmp_path / "nowhere") == []
    manifest.begin(tmp_path, "all", {}, 1)  # a folder that holds runs only may become a run itself
    assert manifest.read(tmp_path)["verb"] == "all"


def test_a_refused_run_leaves_nothing_behind(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InvalidArgument, match="holds other files"):
        square(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


DAMAGE = {
    "total": [0, "4", 10**30, None],
    "verb": [3, None],
    "config": [[], None],
    "created": ["yesterday", 3],
    "circumstances": [[], None],
    "sha256": ["0"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in DAMAGE.items() for value in values])
def test_a_damaged_entry_is_refused(tmp_path, name, value):
    square(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | {name: value}))
    with pytest.raises(FormatError, match="manifest of this run is damaged"):
        repr(RunFolder(tmp_path))
    (tmp_path / "manifest.json").write_text('{"a":' * 100_000)
    with pytest.raises(FormatError, match="manifest of this run is damaged"):
        square(tmp_path)


def test_what_a_killed_start_left_of_a_manifest_is_gone_when_the_next_one_is_written(tmp_path):
    left = tmp_path / f".{manifest.MANIFEST}.tmp-0123"
    left.write_text("{")
    manifest.begin(tmp_path, "squares", CONFIG, 3)
    assert not left.exists() and (tmp_path / manifest.MANIFEST).is_file()
