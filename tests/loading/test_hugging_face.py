"""Local folders and hub names: what loads, what is refused and in which words, and that no socket opens."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file, save_file

import tiny_gguf
from tv_lens.errors import InvalidArgument, ModelLoadError
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import floating_dtype, load_hub, load_local


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail(f"a socket was opened: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at import


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole model folder with its tokenizer."""
    place = tmp_path_factory.mktemp("made")
    (place / "folder").mkdir()
    tiny_gguf.write(place / "tiny.gguf")
    unpack(place / "tiny.gguf", place / "folder", "tiny", progress=False)
    return place / "folder"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def test_a_folder_loads_in_evaluation_mode_with_eager_attention(folder):
    model, tokenizer = load_local(folder)
    assert not model.training and model.config._attn_implementation == "eager"
    assert model.dtype == torch.float32 and tokenizer.is_fast
    ids = torch.tensor([tokenizer("the then").input_ids])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_gguf.llama()(ids).logits)
    assert load_local(str(folder), dtype="bfloat16", device="cpu")[0].dtype == torch.bfloat16
    assert load_local(folder, dtype="auto", device_map="cpu")[0].dtype == torch.float32


def test_progress_bars_are_given_back(folder, capsys):
    assert transformers.utils.logging.is_progress_bar_enabled()
    load_local(folder)
    assert transformers.utils.logging.is_progress_bar_enabled()
    assert capsys.readouterr().err == ""


def _drop_weights(folder):
    (folder / "model.safetensors").unlink()


def _drop_one_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _drop_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _hollow_tokenizer(folder):
    _drop_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


def _adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def _gguf_folder(folder):
    (folder / "config.json").rename(folder / "small.gguf")


def _not_causal(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "vit", "architectures": ["ViTModel"]}
    (folder / "config.json").write_text(json.dumps(config))


def _own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))


def _endless(folder):
    config = json.loads((folder / "config.json").read_text())
    key = next(key for key in ("num_hidden_layers", "n_layer") if key in config)
    (folder / "config.json").write_text(json.dumps(config | {key: 10**9}))


BROKEN = {
    "endless": (_endless, "asks for more layers than any model has.", "config.json again"),
    "deep config": (lambda f: (f / "config.json").write_text('{"a":' * 100_000), "Could not load the folder", ""),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json.", "save_pretrained"),
    "adapter": (_adapter, "The model folder has no config.json.", "it holds an adapter: merge it"),
    "gguf": (_gguf_folder, "The model folder has no config.json.", "small.gguf"),
    "no weights": (_drop_weights, "The model folder has no weights.", "model.save_pretrained(folder)"),
    "no tokenizer": (_drop_tokenizer, "The model folder has no tokenizer.", "tokenizer.save_pretrained"),
    "hollow tokenizer": (_hollow_tokenizer, "has no vocabulary.", "save the model's own tokenizer"),
    "bad config": (lambda f: (f / "config.json").write_text("{"), "a JSON file in it is damaged", "again"),
    "cut weights": (_cut_weights, "a weight file is damaged", "copy or download the weight files again"),
    "one weight less": (_drop_one_weight, "are incomplete.", "copy or download the weight files again"),
    "not causal": (_not_causal, "it is not a causal language model", "decoder-only"),
    "own code": (_own_code, "it brings its own code", "trust_remote_code=True"),
    "gone": (shutil.rmtree, "The model folder cannot be opened.", "give a folder"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_folder_that_cannot_be_loaded_says_why_and_what_to_do(kind, folder):
    harm, what, do = BROKEN[kind]
    harm(folder)
    with pytest.raises(ModelLoadError) as error:
        load_local(folder)
    assert what in error.value.what and do in error.value.do


def test_an_incomplete_checkpoint_names_the_weight(folder):
    _drop_one_weight(folder)
    with pytest.raises(ModelLoadError) as error:
        load_local(folder)
    assert str(error.value) == (
        f"The weights of {folder} are incomplete.\n"
        "  got:     1 missing, the first is model.layers.1.mlp.up_proj.weight\n"
        "  do:      copy or download the weight files again; a base model lacks its language head"
    )


def test_a_device_that_is_not_there_is_refused_before_loading(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelLoadError, match="The device cannot be used") as error:
        load_local(folder, device="cuda")
    assert "cpu" in error.value.allowed


def test_dtypes():
    assert floating_dtype("float16") == floating_dtype("torch.float16") == torch.float16
    for wrong in ("int32", "float33", torch.int8):
        with pytest.raises(InvalidArgument, match="floating-point"):
            floating_dtype(wrong)


# ---- the hub, with what it would raise put in place of it -----------------------------------------


def _wrapped(cause: Exception, words: str = "transformers' own words") -> Exception:
    outer = OSError(words)
    outer.__cause__ = cause
    return outer


def _hub_error(kind: str) -> Exception:
    kind = getattr(hub_errors, kind)
    return kind.__new__(kind, "words")  # their __init__ wants an HTTP response


HUB = {
    "gated": (_wrapped(_hub_error("GatedRepoError")), "it is gated", "hf auth login"),
    "revision": (_wrapped(_hub_error("RevisionNotFoundError")), "it has no revision 'v9'", "commit"),
    "unknown": (_wrapped(_hub_error("RepositoryNotFoundError")), "no such model", "owner/name"),
    "malformed": (_wrapped(hub_errors.HFValidationError("bad")), "no such model", "owner/name"),
    "offline": (_wrapped(hub_errors.OfflineModeIsEnabled("off")), "cannot be reached", "HF_HUB_OFFLINE"),
    "not cached": (_wrapped(_hub_error("LocalEntryNotFoundError")), "cannot be reached", "local folder"),
    "no network": (_wrapped(ConnectionError("refused")), "cannot be reached", "connect once"),
    "words only": (OSError("We couldn't connect to the hub"), "cannot be reached", "connect once"),
}


@pytest.mark.parametrize("kind", HUB)
def test_a_hub_failure_says_what_to_do(kind, monkeypatch):
    raised, what, do = HUB[kind]

    def fail(*args, **kwargs):
        raise raised

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ModelLoadError) as error:
        load_hub("owner/model", revision="v9", hint="did you mean X? Otherwise ")
    assert error.value.what.startswith("Could not load the hub model owner/model: ")
    assert what in error.value.what and do in error.value.do
    assert ("did you mean X?" in error.value.do) == (kind not in ("gated", "revision"))


def test_the_hub_client_is_asked_with_the_revision(folder, monkeypatch):
    asked = []
    for auto in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
        own = auto.from_pretrained

        def local(name, *args, own=own, **kwargs):
            asked.append((name, kwargs.pop("revision"), "local_files_only" in kwargs))
            return own(folder, *args, local_files_only=True, **kwargs)

        monkeypatch.setattr(auto, "from_pretrained", local)
    load_hub("owner/model", revision="v9")
    assert asked == [("owner/model", "v9", False)] * 2


def test_offline_hub_fails_at_once_without_a_socket(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    with pytest.raises(ModelLoadError, match="the hub cannot be reached and the model is not in its cache"):
        load_hub("nobody/nothing-of-this-name")
