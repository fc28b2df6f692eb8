"""The view of a folder, the shards of a verb with and without one, and the folders of its stages."""

from __future__ import annotations

import json

import pytest
from filelock import FileLock

from squares import CONFIG, square
from tv_lens.errors import InvalidArgument, RunMismatch
from tv_lens.storage import manifest, run_folder
from tv_lens.storage.run_folder import RunFolder, inside, shards, whole


def test_a_run_tells_what_it_is_and_how_far(tmp_path):
    assert repr(RunFolder(tmp_path / "new")) == f"RunFolder {tmp_path / 'new'}\n  nothing begun"
    run = tmp_path / "run"
    with shards(run, verb="squares", config=CONFIG, total=4) as work:
        work.put(0, {})
    square(inside(run, "a <stage>"))
    found = RunFolder(run)
    assert (found.verb, found.total, found.done) == ("squares", 4, 1) and found.manifest["config"]["seed"] == 0
    assert [part.path.name for part in found.parts] == ["a--stage-"]
    lines = repr(found).splitlines()
    assert lines[1].startswith("  squares: 1 of 4 shards, begun ") and " ago, last shard " in lines[1]
    assert lines[2].startswith("    a--stage-/ squares: done (4 shards), begun ")
    assert "<b>RunFolder</b>" in found._repr_html_() and "squares: 1 of 4 shards" in found._repr_html_()
    square(RunFolder(tmp_path / "by run"))
    assert RunFolder(tmp_path / "by run").done == 4 and inside(None, "x") is None
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["config"]["versions"]) >= {"tv_lens", "torch"} and manifest["circumstances"]["threads"] == 1


def test_shards_in_memory_take_the_same_way():
    assert square(None) == [0, 1, 2, 3]
    with shards(None, verb="squares", config=CONFIG, total=2) as work:
        assert list(work.pending()) == [0, 1]  # not put: not asked for again
        assert work.provenance == {} and work.done == []
        with pytest.raises(InvalidArgument, match="This shard has not been computed"):
            work.all()
        with pytest.raises(InvalidArgument, match="There is no such shard"):
            work.put(2, {})
        with pytest.raises(InvalidArgument, match="arrays of numbers or texts"):
            work.put(0, {"things": [object()]})
    with pytest.raises(InvalidArgument, match="at least one shard"), shards(None, verb="none", config={}, total=0):
        pass


def test_a_folder_is_a_path(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert folder.path == tmp_path and folder.__fspath__() == str(tmp_path) and folder == RunFolder(tmp_path)
    assert (folder.manifest, folder.verb, folder.total, folder.done, folder.parts) == (None, None, 0, 0, ())
    assert inside(folder, "pos tag", 3) == tmp_path / "pos-tag" / "3"


def test_a_verb_of_several_stages_checks_its_configuration_and_notes_its_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole(tmp_path, verb="survey", config={"seed": 0}):
        square(inside(tmp_path, "stage"))
        raise KeyboardInterrupt
    assert (RunFolder(tmp_path).verb, RunFolder(tmp_path).done) == ("survey", 0)
    with pytest.raises(RunMismatch, match="seed: 0 in the folder, 1 asked for"):
        with whole(tmp_path, verb="survey", config={"seed": 1}):
            pytest.fail("it began")
    for _ in range(2):
        with whole(tmp_path, verb="survey", config={"seed": 0}):
            assert square(inside(tmp_path, "stage")) == []
        assert RunFolder(tmp_path).done == 1
    with whole(None, verb="survey", config={}):
        pass


@pytest.mark.parametrize(
    ("seconds", "words"), [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (3 * 86400, "3 d")]
)
def test_ages_are_said_in_the_largest_unit_of_which_there_are_two(seconds, words, monkeypatch):
    monkeypatch.setattr(run_folder.time, "time", lambda: 1e9)
    assert run_folder._ago(1e9 - seconds) == words


def test_a_run_that_is_refused_before_its_first_shard_leaves_nothing_behind(tmp_path):
    def refused(put: bool) -> None:
        with whole(tmp_path / "new" / "run", verb="outer", config={}):
            with shards(tmp_path / "new" / "run" / "stage", verb="inner", config={}, total=2) as work:
                for i in work.pending():
                    if put and i == 0:
                        work.put(0, {"x": 1})
                    else:
                        raise InvalidArgument("It cannot be done.")

    with pytest.raises(InvalidArgument, match="cannot be done"):
        refused(put=False)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="cannot be done"):
            refused(put=True)
        assert RunFolder(tmp_path / "new" / "run" / "stage").done == 1, "finished work stays"


def test_what_another_process_computes_stays(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be done"):
        with shards(tmp_path / "run", verb="one", config={}, total=2) as work:
            (tmp_path / "run" / "claims").mkdir()
            with FileLock(tmp_path / "run" / "claims" / "00001"):
                try:
                    raise InvalidArgument("It cannot be done.")
                finally:
                    assert work.done == []
                    manifest.forget(tmp_path / "run", [tmp_path / "run"])
                    assert RunFolder(tmp_path / "run").total == 2
