"""A GGUF file as an ordinary Hugging Face folder: config, dequantised safetensors, tokenizer."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import mmap
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import ModelLoadError
from tv_lens.progress import progress as progress_bar
from tv_lens.torch_settings import plain_settings

log = logging.getLogger(__name__)

# Vocabularies, by their GGUF name, that were trained with each digit separated before the byte-level split.
# transformers builds the plain byte-level tokenizer for them; the two differ where blanks come before a digit.
_DIGITS_FIRST = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})


@plain_settings()
def unpack(source: Path, folder: Path, name: str, progress: bool = True, dtype: torch.dtype = torch.float32) -> None:
    """Fills an empty folder with the model of a GGUF file.

    Raises:
        ModelLoadError: the file is damaged, incomplete, or of an architecture that transformers cannot read.
        OSError: the folder cannot be written.
    """
    with progress_bar(f"Unpacking {name} (once)", total=3, unit="steps", show=progress) as bar:
        with _reading(source), _alone(source) as link:
            with _quiet():
                tokenizer = _tokenizer(link)
            bar.advance()
            with _quiet():
                model = _clean_copy(_dequantised(link, dtype), dtype)
            bar.advance()
        with _quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        bar.advance()


def _tokenizer(source: Path) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    byte_level = _metadata_text(source, "tokenizer.ggml.model") == "gpt2"
    if byte_level and _metadata_text(source, "tokenizer.ggml.pre") in _DIGITS_FIRST:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    for key in ("is_local", "local_files_only"):  # these say how it was loaded
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def _metadata_text(source: Path, key: str) -> str:
    """The text under a metadata key, or "": a search for its bytes, since parsing the whole header takes seconds."""
    string = 8  # GGUF's number for this type; an entry is the key's length, the key, the type, then length and text
    entry = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", string)
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(entry)
        if place < 0:
            return ""
        start = place + len(entry) + 8
        (length,) = struct.unpack_from("<Q", data, start - 8)
        return data[start : start + length].decode("utf-8", "replace")


def _dequantised(source: Path, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM, GgufConfig

    # Said explicitly: where a GGUF kernel is installed, transformers would keep the quantised blocks instead.
    model, report = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
        output_loading_info=True,
    )
    if absent := sorted(report["missing_keys"]):  # transformers fills them with random numbers and raises nothing
        raise ModelLoadError(
            "The GGUF file is incomplete.",
            got=f"{source.name} lacks {len(absent)} weights, the first is {absent[0]}",
            do="download or convert it again",
        )
    return model


def _clean_copy(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The same weights in a model whose config names no quantisation, so that transformers saves it."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # no random initialisation, and no second copy of the weights in memory
        clean = AutoModelForCausalLM.from_config(config, dtype=dtype)
    clean.load_state_dict(model.state_dict(), strict=True, assign=True)
    clean.tie_weights()
    return clean.eval()


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turns what the readers raise for a damaged or unknown file into a `ModelLoadError`."""
    try:
        yield
    except (ModelLoadError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["(no message)"])[0]
        what = "The GGUF file cannot be read."
        do = "the file may be cut short or damaged: compare its size or checksum and copy it again"
        if "not supported" in reason or "Unrecognized configuration class" in reason:
            what = "transformers cannot read this GGUF architecture."
            do = "load the model's original Hugging Face folder instead"
        got = f"{source} ({type(error).__name__}: {reason[:200]})"
        raise ModelLoadError(what, got=got, do=do) from error


@contextlib.contextmanager
def _alone(source: Path) -> Iterator[Path]:
    """A link to the file in a folder of its own, since transformers also reads other files of its folder."""
    with tempfile.TemporaryDirectory(prefix="tv_lens-") as folder:
        link = Path(folder) / source.name
        try:
            link.symlink_to(source.resolve())
        except OSError:  # on Windows not every user may create links
            link = source
        yield link


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends what the readers write to stderr, their progress bars too, to the log."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            yield
    finally:
        log.debug("%s", output.getvalue())
