"""A GGUF file as an ordinary Hugging Face folder: config, dequantised safetensors, tokenizer."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf_config import apply_metadata, check_readable, check_tensors
from tv_lens.loading.gguf_header import GgufHeader, read_header
from tv_lens.loading.gguf_tokenizer import tokenizer_of
from tv_lens.loading.stored_weights import stored_weights
from tv_lens.progress import progress as progress_bar
from tv_lens.torch_settings import plain_settings

log = logging.getLogger(__name__)


@plain_settings()
def unpack(
    source: Path,
    folder: Path,
    name: str,
    progress: bool = True,
    dtype: torch.dtype = torch.float32,
    full_name: str = "",
) -> None:
    """Fills an empty folder with the model of a GGUF file.

    Args:
        full_name: what the model is called; the name that the file states if "".

    Raises:
        ModelLoadError: the file is damaged, incomplete, of an architecture that transformers cannot read, or says
            something that transformers would pass over.
        OSError: the folder cannot be written.
    """
    with progress_bar(f"Unpacking {name} (once)", total=3, unit="steps", show=progress) as bar:
        with _reading(source), _alone(source) as link:
            header = read_header(link)
            check_readable(header)
            with _quiet():
                tokenizer = tokenizer_of(header)
            bar.advance()
            with _quiet():
                model = _clean_copy(_dequantised(header, dtype), dtype)
            model.config.stored_weights = stored_weights(header, full_name)
            bar.advance()
        with _quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        bar.advance()


def _dequantised(header: GgufHeader, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    source = header.path
    where = dict(gguf_file=source.name, local_files_only=True)
    config = AutoConfig.from_pretrained(source.parent, **where)
    apply_metadata(config, header)
    # Said explicitly: where a GGUF kernel is installed, transformers would keep the quantised blocks instead.
    model, report = AutoModelForCausalLM.from_pretrained(
        source.parent,
        config=config,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        **where,
    )
    if absent := sorted(report["missing_keys"]):  # transformers fills them with random numbers and raises nothing
        raise ModelLoadError(
            "The GGUF file is incomplete.",
            got=f"{source.name} lacks {len(absent)} weights, the first is {absent[0]}",
            do="download or convert it again",
        )
    check_tensors(model, header, report["unexpected_keys"])
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
    except ModelLoadError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["(no message)"])[0]
        what = "The GGUF file cannot be read."
        do = "the file may be cut short or damaged: compare its size or checksum and copy it again"
        if "not supported" in reason or "Unrecognized configuration class" in reason:
            what = "transformers cannot read this GGUF architecture."
            do = "load the model's original Hugging Face folder instead"
        if isinstance(error, MemoryError):
            do = "free some memory, or load it on a machine with more"
        if "mismatched_sizes" in reason:
            reason = "the sizes of its tensors are not those that its metadata gives"
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
