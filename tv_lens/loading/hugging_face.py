"""A Hugging Face model and its tokenizer from a folder or the hub, with an error that says what to do.

Only `load_hub` may use the network, whatever HF_HUB_OFFLINE says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import InvalidArgument, ModelLoadError
from tv_lens.torch_settings import plain_settings

_MOST_LAYERS = 10_000  # the deepest models have fewer than 300
_NO_NETWORK = frozenset(
    [
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "gaierror",
        "ConnectionError",
    ]
)


def load_local(
    folder: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[torch.nn.Module, Any]:
    """The model of a local folder, in evaluation mode with eager attention, and its tokenizer, without network.

    Args:
        dtype: a torch dtype, its name, or "auto" for the one that the folder states.
        device: the device of the whole model; ignored if `device_map` is given.
        device_map: how the model is distributed over devices, as in accelerate.
        trust_remote_code: runs model code that the folder holds.

    Raises:
        ModelLoadError: config, weights or tokenizer are missing, damaged or incomplete, or not causal.
    """
    folder = Path(folder).expanduser()
    _check_folder(folder)
    with _explained(f"the folder {folder}"), _no_bars():
        return _load(str(folder), dtype, device, device_map, trust_remote_code, local_files_only=True)


def load_hub(
    name: str,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    hint: str = "",
) -> tuple[torch.nn.Module, Any]:
    """The model of that name on the Hugging Face hub, or in its local cache, and its tokenizer.

    The arguments are those of `load_local`; `revision` is a branch, a tag or a commit, and `hint` stands
    before the advice of the error for an unknown name.

    Raises:
        ModelLoadError: no network, unknown name or revision, gated, or not a causal language model.
    """
    with _explained(f"the hub model {name}", _HubRequest(revision, hint)):
        return _load(name, dtype, device, device_map, trust_remote_code, revision=revision)


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a local folder, which is read without network, or of a hub name.

    Raises:
        ModelLoadError: there is none, or it cannot be built.
    """
    from transformers import AutoTokenizer

    local = isinstance(source, Path)
    with _explained(f"the tokenizer {source}", None if local else _HubRequest(None, "")):
        return AutoTokenizer.from_pretrained(str(source), local_files_only=local)


def floating_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    """The torch dtype of that name, or "auto".

    Example:
        >>> floating_dtype("bfloat16")
        torch.bfloat16
    """
    if isinstance(dtype, str) and dtype != "auto":
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if dtype == "auto" or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    raise InvalidArgument(
        "The dtype of a model must be a floating-point type.",
        got=repr(dtype),
        allowed="'float32', 'bfloat16', 'float16', 'float64', the torch dtypes of these names, or 'auto'",
    )


@plain_settings()
def _load(
    source: str,
    dtype: torch.dtype | str,
    device: torch.device | str | None,
    device_map: str | Mapping[str, Any] | None,
    trust_remote_code: bool,
    **where: Any,
) -> tuple[torch.nn.Module, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = floating_dtype(dtype)
    if device is not None and device_map is None:
        _check_device(device)
    where["trust_remote_code"] = trust_remote_code
    # The tokenizer first: it is small, so that a wrong name or a missing file shows before gigabytes are read.
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelLoadError(  # transformers builds one from a tokenizer_config.json alone and raises nothing
            f"The tokenizer of {source} has no vocabulary.",
            got=f"{len(tokenizer)} tokens, all of them special",
            do="save the model's own tokenizer there: tokenizer.save_pretrained(folder)",
        )
    # Eager attention: the other implementations never compute the pattern that hooks read and write.
    where |= dict(attn_implementation="eager", output_loading_info=True)
    model, report = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map=device_map, **where)
    if absent := sorted(report["missing_keys"]):
        raise ModelLoadError(  # transformers fills them with random numbers and raises nothing
            f"The weights of {source} are incomplete.",
            got=f"{len(absent)} missing, the first is {absent[0]}",
            do="copy or download the weight files again; a base model lacks its language head",
        )
    if device is not None and device_map is None:
        model = model.to(device)
    return model.eval(), tokenizer


def _check_folder(folder: Path) -> None:
    """Raises `ModelLoadError` with what a folder lacks; the error of the library would be a page long."""
    if not folder.is_dir():
        raise ModelLoadError(
            "The model folder cannot be opened.",
            got=f"{folder} {'is a file' if folder.exists() else 'does not exist'}",
            do="give a folder with config.json, weights and tokenizer, or the path of a .gguf file",
        )
    names = sorted(path.name for path in folder.iterdir())
    _check_layers(folder / "config.json")
    listing = f"{folder} with {', '.join(names[:8] + ['...'] * (len(names) > 8)) or 'nothing in it'}"
    if "config.json" not in names:
        do = "save a model there: model.save_pretrained(folder); tokenizer.save_pretrained(folder)"
        if "adapter_config.json" in names:
            do = "it holds an adapter: merge it into its base model (peft: merge_and_unload) and save that"
        elif ggufs := [name for name in names if name.endswith(".gguf")]:
            do = f"it holds a GGUF: load {folder / ggufs[0]}"
        raise ModelLoadError("The model folder has no config.json.", got=listing, do=do)
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise ModelLoadError(
            "The model folder has no weights.",
            got=listing,
            allowed="*.safetensors or *.bin",
            do="save the model there: model.save_pretrained(folder)",
        )
    if not any("token" in n or n.startswith("vocab") or n.endswith((".model", ".tiktoken")) for n in names):
        raise ModelLoadError(
            "The model folder has no tokenizer.",
            got=listing,
            do="save the model's tokenizer there: tokenizer.save_pretrained(folder)",
        )


def _check_layers(config: Path) -> None:
    """Raises `ModelLoadError` for a config that asks for more layers than any model has: building them never ends."""
    try:
        content = json.loads(config.read_bytes())
        counts = {key: content.get(key) for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")}
    except (OSError, ValueError, AttributeError, RecursionError):  # said when the config is read
        return
    for key, count in counts.items():
        if isinstance(count, (int, float)) and count > _MOST_LAYERS:
            raise ModelLoadError(
                "The config of the model asks for more layers than any model has.",
                got=f"{key} = {count} in {config}",
                allowed=f"at most {_MOST_LAYERS}",
                do="copy or download config.json again",
            )


def _check_device(device: torch.device | str) -> None:
    """Raises `ModelLoadError` for a device that cannot be used, before gigabytes are read for it."""
    try:
        torch.empty(0, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        accelerators = [kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available()]
        raise ModelLoadError(
            "The device cannot be used.",
            got=f"{str(device)!r} ({_first_line(error)})",
            allowed=", ".join(["cpu", *accelerators]),
            do="choose one that this machine and this build of torch have",
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' progress bars: loading from a disk takes seconds. The setting is restored afterwards."""
    from transformers.utils import logging as transformers_logging

    were_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            transformers_logging.enable_progress_bar()


# ---- failures ----------------------------------------------------------------------------------


class _HubRequest:
    def __init__(self, revision: str | None, hint: str):
        self.revision, self.hint = revision, hint


@contextmanager
def _explained(what: str, hub: _HubRequest | None = None) -> Iterator[None]:
    """Turns what a library raises while it loads into a `ModelLoadError` that says what to do."""
    try:
        yield
    except (ModelLoadError, InvalidArgument):
        raise
    except Exception as error:
        kinds, words = _chain(error)
        cause, do = (hub and _hub_diagnosis(hub, kinds, words)) or _diagnosis(kinds, words)
        got = f"{type(error).__name__}: {_first_line(error)}"
        raise ModelLoadError(f"Could not load {what}: {cause}.", got=got, do=do) from error


def _hub_diagnosis(hub: _HubRequest, kinds: set[str], words: str) -> tuple[str, str] | None:
    if "GatedRepoError" in kinds or "gated repo" in words:
        return "it is gated", "accept its terms on its hub page, then log in here: hf auth login"
    if "RevisionNotFoundError" in kinds:
        return f"it has no revision {hub.revision!r}", "name a branch, a tag or a commit of its hub page"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"} or "not a valid model identifier" in words:
        cause = "the hub has no such model, or it is private"
        return cause, hub.hint + "check owner/name, and log in for a private one"
    if kinds & _NO_NETWORK or "couldn't connect" in words or "offline mode" in words:
        cause = "the hub cannot be reached and the model is not in its cache"
        return cause, hub.hint + "connect once (with HF_HUB_OFFLINE unset), or load a local folder"
    return None


def _diagnosis(kinds: set[str], words: str) -> tuple[str, str]:
    if "trust_remote_code" in words:
        return "it brings its own code", "read that code; if you trust it, pass trust_remote_code=True"
    if kinds & {"OutOfMemoryError", "MemoryError"}:
        return "the memory is too small", "try dtype='bfloat16', or device_map='auto' to use more devices"
    if kinds & {"SafetensorError", "UnpicklingError"} or "PytorchStreamReader" in words:
        return "a weight file is damaged", "copy or download the weight files again"
    if "JSONDecodeError" in kinds or "not a valid JSON file" in words:
        return "a JSON file in it is damaged", "copy or download it again"
    if "Unrecognized configuration class" in words:
        return "it is not a causal language model", "choose a decoder-only language model"
    if "tokenizer" in words.lower():
        return "its tokenizer cannot be built", "save the model's own tokenizer beside its weights"
    return "transformers refused it", "check its files, and whether this transformers knows the model"


def _chain(error: BaseException | None) -> tuple[set[str], str]:
    """The class names and the messages of an exception and of those that caused it."""
    kinds: set[str] = set()
    words: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kinds |= {kind.__name__ for kind in type(error).__mro__}
        words.append(str(error))
        error = error.__cause__ or error.__context__
    return kinds, "\n".join(words)


def _first_line(error: BaseException, most: int = 200) -> str:
    lines = str(error).strip().splitlines() or ["(no message)"]
    return lines[0] if len(lines[0]) <= most else lines[0][:most] + "..."
