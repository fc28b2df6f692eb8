"""Activation tables in memory and in files: the same numbers, continued after a kill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.site import Site
from tv_lens.task_vectors import activation_table
from tv_lens.task_vectors.activation_table import read_rows
from tv_lens.task_vectors.representations import classes_of, draw, read, read_together

SITES = [Site("resid_post", layer) for layer in range(3)] + [Site("z", 1)]


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def counting(model, monkeypatch) -> list:
    """The batches of every pass from now on."""
    ran, forward = [], model.forward

    def noted(batch, *arguments, **options):
        ran.append(batch)
        return forward(batch, *arguments, **options)

    monkeypatch.setattr(model, "forward", noted)
    return ran


@pytest.fixture(scope="module")
def several(model):
    classes = classes_of(tiny_characters.telling(3), null=False)[0]
    return {shots: draw(model, classes, shots=shots, n=6) for shots in (1, 4, 10)}


def test_equal_prompts_run_once_and_are_one_point(model, monkeypatch):
    classes = classes_of({f"name-{i}": tiny_characters.pairings(1)[0] for i in range(3)}, null=False)[0]
    points = draw(model, classes, shots=0, n=50)
    ran, forward, capture = [], model.forward, model.capture

    def counting(batch, *args, **kwargs):
        ran.extend(batch.rows())
        return forward(batch, *args, **kwargs)

    monkeypatch.setattr(
        activation_table, "packing_is_exact", lambda model: False
    )  # packs run even less: test_packing.py
    monkeypatch.setattr(model, "forward", counting)
    counted = []
    site = Site("resid_post", 2)
    vectors = read(model, points, [site], counted.append)[site]
    assert len(ran) == len(set(points.texts)) < 40 and sum(counted) == points.n_tokens == 2 * len(ran)
    same = points.texts.index(points.texts[-1])
    assert same < 149 and torch.equal(vectors[same], vectors[-1])
    for i in (0, 77, 149):
        alone = capture(points.texts[i], [site], pos=-1)[site][0]
        torch.testing.assert_close(vectors[i], alone, atol=1e-5, rtol=1e-5)


def test_shot_counts_together_hold_what_each_holds_and_run_fewer_tokens(model, several, monkeypatch):
    ran = counting(model, monkeypatch)
    found, counted = read_together(model, several, SITES), []
    together = sum(int(batch.mask.sum()) for batch in ran)
    assert list(found) == [1, 4, 10]
    for shots, points in several.items():
        plain = model.capture(points.texts, SITES, pos=-1)
        for site in SITES:
            flat = plain[site].reshape(len(points.rows), -1)
            torch.testing.assert_close(found[shots][site], flat, atol=1e-5, rtol=1e-5)
        read(model, points, SITES, counted.append)
    assert sum(counted) == sum(points.n_tokens for points in several.values())
    assert together < 0.8 * sum(points.n_tokens for points in several.values())


def test_files_hold_what_memory_holds(model, several, tmp_path):
    plain, stored = (read(model, several[4], SITES, store=store) for store in (None, tmp_path / "held"))
    for site in SITES:
        assert torch.equal(plain[site], stored[site])
        assert np.load(tmp_path / "held" / f"{site}.npy").nbytes == plain[site].nbytes  # every point is another prompt
    assert {path.name for path in (tmp_path / "held").iterdir()} >= {"readings.json", "done.safetensors", "z[1].npy"}
    assert repr(stored) == "ActivationTable(4 sites, 18 points)" and len(stored) == 4
    with pytest.raises(tv.errors.TVLensError, match="site that was read"):
        stored["resid_pre[0]"]


def test_a_killed_reading_goes_on_where_it_was(model, several, tmp_path, monkeypatch):
    monkeypatch.setattr(activation_table, "_FLUSH", 0.0)
    monkeypatch.setattr(activation_table, "packing_is_exact", lambda model: False)
    monkeypatch.setattr(activation_table, "tokens_at_once", lambda device: 16)
    whole, folder = read(model, several[4], SITES), tmp_path / "held"
    ran, forward = [], model.forward

    def dying(batch, *arguments, **options):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(len(batch))
        return forward(batch, *arguments, **options)

    monkeypatch.setattr(model, "forward", dying)
    with pytest.raises(KeyboardInterrupt):
        read(model, several[4], SITES, store=folder)
    before = sum(ran)
    assert 0 < before == int(load_file(folder / "done.safetensors")["done"].sum()) < 18
    monkeypatch.setattr(model, "forward", forward)
    ran = counting(model, monkeypatch)
    again = read(model, several[4], SITES, store=folder)
    assert before + sum(map(len, ran)) == 18
    for site in SITES:
        torch.testing.assert_close(again[site], whole[site], atol=1e-6, rtol=0)
    ran.clear()
    assert torch.equal(read(model, several[4], SITES, store=folder)[SITES[0]], again[SITES[0]]) and not ran


def test_rows_that_have_changed_on_the_disk_are_run_again(model, several, tmp_path, monkeypatch):
    whole = read(model, several[4], SITES, store=tmp_path)
    expected = {site: whole[site].clone() for site in SITES}
    name = f"{SITES[0]}.npy"
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    ran = counting(model, monkeypatch)
    with pytest.warns(UserWarning, match="1 rows of the activation table in .* are damaged; they are run again"):
        again = read(model, several[4], SITES, store=tmp_path)
    assert sum(map(len, ran)) == 1
    for site in SITES:
        torch.testing.assert_close(again[site], expected[site], atol=1e-6, rtol=0)
    for broken in ("done.safetensors", name):
        path = tmp_path / broken
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2] if broken != name else kept[:50])
        with pytest.raises(FormatError, match="damaged"):
            read(model, several[4], SITES, store=tmp_path)
        path.write_bytes(kept)


def test_a_table_of_version_0_1_continues_with_a_word(model, several, tmp_path, monkeypatch):
    read(model, several[4], SITES, store=tmp_path)
    np.save(tmp_path / "done.npy", load_file(tmp_path / "done.safetensors")["done"].numpy())
    (tmp_path / "done.safetensors").unlink()
    ran = counting(model, monkeypatch)
    with pytest.warns(UserWarning, match="done.npy was written by an earlier tv_lens"):
        read(model, several[4], SITES, store=tmp_path)
    assert not ran and sorted(path.name for path in tmp_path.glob("done*")) == ["done.safetensors"]


def test_a_folder_of_something_else_is_refused(model, several, tmp_path):
    read(model, several[1], SITES, store=tmp_path / "one")
    with pytest.raises(RunMismatch, match="rows: "):
        read(model, several[4], SITES, store=tmp_path / "one")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InvalidArgument, match="holds other files"):
        read(model, several[4], SITES, store=tmp_path / "notes")
    np.save(tmp_path / "one" / "z[1].npy", np.zeros((2, 2), np.float32))
    with pytest.raises(FormatError, match="damaged"):
        read(model, several[1], SITES, store=tmp_path / "one")


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_model_that_is_partly_elsewhere_is_read_into_files(where, tmp_path):
    """accelerate keeps the middle layer on the CPU side or on the disk, as it does with models larger than a device."""
    accelerate = pytest.importorskip("accelerate")
    source, whole = tiny.hugging_face_model("llama"), tiny_characters.model("llama")
    others = {name for name, module in source.named_modules() if name and not any(module.children())}
    places = {name: "cpu" for name in others if not name.startswith("model.layers.")}
    places |= {f"model.layers.{layer}": where if layer == 1 else "cpu" for layer in range(tiny.LAYERS)}
    spread = accelerate.dispatch_model(source, places, main_device="cpu", offload_dir=tmp_path / "w", force_hooks=True)
    model = tv.load(spread, tokenizer=tiny_characters.tokenizer(), name="llama")
    tasks, options = tiny_characters.telling(3), dict(shots=(0, 2), n=8, k=3, progress=False)
    found = tv.decodability(model, tasks, store=tmp_path / "held", **options).sweep
    np.testing.assert_array_equal(found.values.values, tv.decodability(whole, tasks, **options).sweep.values.values)
    rows = draw(model, classes_of(tasks, null=False)[0], shots=2, n=4).rows
    site = Site("resid_post", 2)
    stored = read_rows(model, rows, [site], store=tmp_path / "rows")[site]
    torch.testing.assert_close(stored, read_rows(whole, rows, [site])[site], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["done.safetensors", "z[1].npy"])
def test_damaged_files_of_a_table_are_refused(name, model, several, tmp_path):
    read(model, several[1], SITES, store=tmp_path / "one")
    whole = (tmp_path / "one" / name).read_bytes()
    damaged = [b"", whole[:40], b"x" * 200, whole[:-1], np.array([None]).dumps()]
    if name.endswith(".npy"):
        damaged.append(whole.replace(b"'shape': (", b"'shape': (9999999999, ")[: len(whole)])
    for content in damaged:
        (tmp_path / "one" / name).write_bytes(content)
        with pytest.raises(FormatError, match="damaged"):
            read(model, several[1], SITES, store=tmp_path / "one")


@pytest.mark.parametrize("text", ["[]", "{", "3", '{"a":' * 100_000])
def test_a_damaged_manifest_of_a_table_is_refused(text, model, several, tmp_path):
    read(model, several[1], SITES, store=tmp_path / "one")
    (tmp_path / "one" / "readings.json").write_text(text)
    with pytest.raises(FormatError, match="manifest of this activation table is damaged"):
        read(model, several[1], SITES, store=tmp_path / "one")
