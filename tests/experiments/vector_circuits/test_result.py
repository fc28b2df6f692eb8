"""The result of decoding circuits: its numbers and its files."""

from __future__ import annotations

import json

import pytest

import tv_lens as tv
from tv_lens.errors import RenamedError


def test_each_circuit_is_saved_in_four_formats_beside_its_vector(known, tmp_path):
    path = known.save(tmp_path / "out")
    assert path == tmp_path / "out" / "circuits.json"
    names = {file.name for file in path.parent.iterdir()}
    assert names == {
        "circuits.json",
        *(f"switch-{x}.{s}" for x in "ab" for s in ("json", "graph.json", "graphml", "dot", "safetensors")),
    }
    numbers = json.loads((path.parent / "circuits.json").read_text())
    assert numbers["tasks"]["switch-a"]["recovered"]["circuit"]["mean"] == pytest.approx(1, abs=1e-3)
    back = tv.Circuit.from_json(path.parent / "switch-a.json")
    assert back.same_edges(known.circuits["switch-a"])


def test_the_summary_is_json_and_names_every_task(known):
    summary = known.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["tasks"]) == ["switch-a", "switch-b"] and summary["overlap"] is None
    assert repr(known).startswith("DecodingResult of 2 tasks on ") and "injected at layer 0" in repr(known)


def test_the_page_is_a_verb_and_no_method(known):
    with pytest.raises(RenamedError, match=r"tv.report\(result\)"):
        known.page()


def test_its_picture_is_the_circuit_of_one_task(known):
    names = list(known.found)
    assert tv.plot(known).svg == tv.plot(known, task=names[0]).svg
    assert tv.plot(known, task=names[1]).svg != tv.plot(known).svg
