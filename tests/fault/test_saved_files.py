"""Every kind of file that is saved: opened without this library, and damaged in every way; never another number."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from saved_kinds import KINDS, Saved, held
from tv_lens.errors import FormatError, TVLensError
from tv_lens.storage import envelope

OLD = Path(__file__).parents[1] / "old_files"
ALONE = """
import hashlib, json, sys
from safetensors import safe_open
found = {}
for name, path in json.loads(sys.argv[1]).items():
    with safe_open(path, framework="numpy") as file:
        about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    sums = {key: hashlib.sha256(one.tobytes()).hexdigest() for key, one in tensors.items()}
    assert sums == json.loads(about.pop("checksums")), name
    found[name] = {**about, "labels": json.loads(about["labels"]), "libraries": json.loads(about["libraries"])}
    bits = {key: [one.dtype.str, list(one.shape), one.tobytes().hex()] for key, one in tensors.items()}
    found[name]["tensors"] = bits
assert not {"tv_lens", "torch", "xarray"} & sys.modules.keys()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return {name: saved.write(tmp_path_factory.mktemp("saved")) for name, saved in KINDS.items()}


@pytest.fixture(scope="module")
def alone(files) -> dict[str, dict]:
    """What a process finds that has safetensors, numpy and json, and not this library."""
    paths = json.dumps({name: str(path) for name, path in files.items()})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", ALONE, paths], capture_output=True, text=True, timeout=60, env=environment, cwd="/"
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_opens_without_this_library_and_holds_the_same_numbers(name, alone, files):
    found, saved = alone[name], KINDS[name]
    assert (found["format"], found["envelope"], found["kind"]) == ("tv_lens", "1", saved.kind)
    assert found["version"].isdigit() and set(found["libraries"]) == set(envelope.LIBRARIES) and found["date"]
    assert found["configuration"] or name in ("probe", "capture", "scores", "attention", "comparison")
    here = held(saved, files[name])
    for key, (dtype, shape, numbers) in found["tensors"].items():
        if key not in ("edges", "tokens.ids", "tokens.mask"):  # these are read as a graph and as prompts
            assert json.dumps([dtype, shape, numbers]) in here, key


def test_labels_say_what_the_numbers_are(alone):
    labels = {name: found["labels"] for name, found in alone.items()}
    sweep = labels["sweep"]
    assert sweep["metric"] and sweep["arrays"]["values"]["dims"][0] == "example"
    scores, edges = labels["edge scores"], alone["edge scores"]["tensors"]["edges"]
    assert edges[1][1] == 3 and "input" in scores["writers"] and scores["readers"][-1] == "logits"
    assert labels["circuit"]["requested"] == 40 and labels["circuit"]["scores"]["metric"]
    assert labels["vector"]["site"] == "resid_post[1]@-1" and labels["vector"]["prompts"]["shots"] == 4
    assert labels["capture"]["sites"] == ["resid_post[1]", "z[0]@-1"]
    assert labels["network"]["network"]["d_model"] == 4 and labels["network"]["family"]
    assert labels["checkpoint"] == {"step": 7} and labels["training state"] == {"step": 9}
    assert labels["packed network"]["steps"] == [0, 5, 9] and labels["packed network"]["command"] == "as typed"
    assert labels["shard"]["about"] == {"layers": [1, 2]} and alone["shard"]["configuration"] == "0123abcd"


def harmed(content: bytes, draw: random.Random) -> bytes:
    """The content with one to three damages: flipped bits, other bytes, cuts, blocks of zeros, blocks put elsewhere."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at, size = draw.randrange(len(changed)), draw.choice([1, 4, 64, 4096])
        how = draw.choice(["bit", "bit", "byte", "cut", "zeros", "moved", "removed", "longer"])
        if how == "bit":
            changed[at] ^= 1 << draw.randrange(8)
        elif how == "byte":
            changed[at] = draw.randrange(256)
        elif how == "cut":
            del changed[max(1, at) :]
        elif how == "zeros":
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        elif how == "moved":
            changed[at:at] = changed[: draw.randrange(size) + 1]
        elif how == "removed":
            del changed[at : at + size]
        else:
            changed += draw.randbytes(size)
        changed = changed or bytearray(b"x")
    return bytes(changed)


def damaged_again_and_again(saved: Saved, path: Path, n: int) -> Counter[str]:
    """How many damaged files were refused, how many read as what they were; anything else fails."""
    whole, expected, draw, counts = path.read_bytes(), held(saved, path), random.Random(0), Counter()
    try:
        for i in range(n):
            path.write_bytes(harmed(whole, draw))
            try:
                found = held(saved, path)
            except FormatError:
                counts["refused"] += 1
            else:
                assert found == expected, f"damage {i} gave other numbers"
                counts["the same"] += 1
    finally:
        path.write_bytes(whole)
    assert held(saved, path) == expected
    return counts


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_one_error_or_holds_what_it_held(name, files):
    counts = damaged_again_and_again(KINDS[name], files[name], 60)
    assert counts["refused"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_thousand_damaged_files_of_each_kind(name, files, record_property):
    counts = damaged_again_and_again(KINDS[name], files[name], 1000)
    record_property("counts", dict(counts))
    assert counts.total() == 1000 and counts["refused"] > 900


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_refused_as_every_other(name, files, tmp_path):
    """The file of each kind in the place of a file of this kind."""
    mine, whole = files[name], files[name].read_bytes()
    try:
        for other, path in files.items():
            if KINDS[other].kind != KINDS[name].kind:
                mine.write_bytes(path.read_bytes())
                with pytest.raises(FormatError, match="kind|damaged"):
                    held(KINDS[name], mine)
    finally:
        mine.write_bytes(whole)


OLD_KINDS = {"sweep": "sweep.tv", "recovery": "recovery.tv", "edge scores": "edge_scores.safetensors"}


@pytest.mark.filterwarnings("ignore:.*was written by an earlier tv_lens")
@pytest.mark.parametrize("name", OLD_KINDS)
def test_damage_of_old_files_is_an_error_of_the_house_where_it_is_noticed(name, tmp_path):
    """Before the envelope these kinds had no checksum, so that other numbers are possible; bare errors are not."""
    whole, path, draw, refused = (OLD / OLD_KINDS[name]).read_bytes(), tmp_path / "old", random.Random(0), 0
    for _ in range(60):
        path.write_bytes(harmed(whole, draw))
        try:
            held(KINDS[name], path)
        except TVLensError:
            refused += 1
    assert refused > 30
