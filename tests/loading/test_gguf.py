"""A GGUF file as a folder: the same weights, the same tokens, and a word for each file that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import tiny_gguf
from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import load_local


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_gguf.write(path)
    return path


def unpacked(source: Path, folder: Path, **options) -> Path:
    folder.mkdir()
    unpack(source, folder, "tiny", progress=False, **options)
    return folder


@pytest.fixture(scope="module")
def folder(source) -> Path:
    return unpacked(source, source.parent / "folder")


def test_the_folder_holds_config_weights_and_tokenizer_and_the_same_model(folder):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    model, expected = load_local(folder)[0], dict(tiny_gguf.llama().named_parameters())
    assert {name: weight.dtype for name, weight in model.named_parameters()} == dict.fromkeys(expected, torch.float32)
    assert all(torch.equal(weight, expected[name]) for name, weight in model.named_parameters())
    assert not hasattr(model.config, "quantization_config")


def test_a_digit_is_cut_off_before_blanks_are_joined(folder):
    assert load_local(folder)[1].tokenize("a  1 x") == ["a", "ĠĠ", "1", "Ġ", "x"]


def test_weights_are_written_in_the_dtype_that_is_named(source, tmp_path):
    folder = unpacked(source, tmp_path / "half", dtype=torch.bfloat16)
    assert load_local(folder, dtype="auto")[0].dtype == torch.bfloat16


def test_what_lies_beside_the_gguf_is_not_mixed_in(source, tmp_path):
    (tmp_path / "beside").mkdir()
    copy = Path(shutil.copy(source, tmp_path / "beside" / "tiny.gguf"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "adapter_config.json"):
        (tmp_path / "beside" / name).write_text("{ not even JSON")
    assert load_local(unpacked(copy, tmp_path / "folder"))[1].tokenize("the") == ["the"]


def test_the_bars_of_the_readers_stay_off_the_screen(source, tmp_path, capfd):
    unpacked(source, tmp_path / "folder")
    assert capfd.readouterr().err == ""


def test_an_incomplete_file_is_said_whole(tmp_path):
    path = tmp_path / "model.gguf"
    tiny_gguf.write(path, leave_out="blk.1.ffn_up.weight")
    with pytest.raises(ModelLoadError) as caught:
        unpacked(path, tmp_path / "folder")
    assert str(caught.value) == (
        "The GGUF file is incomplete.\n"
        "  got:     model.gguf lacks 1 weights, the first is model.layers.1.mlp.up_proj.weight\n"
        "  do:      download or convert it again"
    )
