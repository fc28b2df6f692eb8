"""Task vectors on disk: the direction and the sweep that its layer was chosen by, and as labels where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_file import HEADER, labelled, labels_of
from tv_lens.storage import envelope, old_files
from tv_lens.storage.configuration import digest

KIND = envelope.Kind("task_vector", "TaskVector.save(path)")
_OLD = "tv_lens.task_vector"  # the format of files before the envelope
_TEXTS = ("task", "site", "model", "fingerprint", "tokenizer")
_DICTS = ("method", "prompts")


def write(path: Path, direction: Float[Tensor, "d_model"], about: dict[str, Any], selection: Sweep | None) -> Path:
    """Writes a vector, whole or not at all."""
    tensors: dict[str, Any] = {"direction": direction}
    labels: dict[str, Any] = {key: about[key] for key in (*_TEXTS, *_DICTS)}
    if selection is not None:
        tensors["selection"] = selection.values.values
        fields = {key: getattr(selection, key) for key in HEADER}
        labels["selection"] = {**fields, "values": labels_of(selection.values)}
    origin = {key: about[key] for key in ("model", "fingerprint", "site", *_DICTS)}
    return envelope.write(path, KIND, tensors, labels, digest(origin))


@contextmanager
def opened(path: Path) -> Iterator[tuple[Float[Tensor, "d_model"], dict[str, Any], Sweep | None]]:
    """The numbers, where they come from, and the layer sweep of a file that `write` wrote.

    What does not fit in the `with` is damage.

    Raises:
        FormatError: the file is damaged, is not a task vector, or comes from a later version.
        MissingFile: there is no such file.
    """
    if old_files.format_of(path) == _OLD:
        with old_files.reading(path, KIND):
            yield _old(path)
    else:
        with envelope.opened(path, KIND) as file:
            labels, selection = file.labels, None
            if "selection" in file:
                fields = dict(labels["selection"])
                selection = Sweep(labelled(file["selection"].numpy(), fields.pop("values")), **fields)
            yield file["direction"], {key: labels[key] for key in (*_TEXTS, *_DICTS)}, selection


def _old(path: Path) -> tuple[Tensor, dict[str, Any], Sweep | None]:
    tensors, header = old_files.tensors(path)
    if int(header["version"]) > 1 or header.pop("sha256") != _old_checksum(tensors, header):
        raise ValueError("its checksum does not fit")
    about = {**{key: header[key] for key in _TEXTS}, **{key: json.loads(header[key]) for key in _DICTS}}
    selection = None
    if "selection" in tensors:
        fields = json.loads(header["selection"])
        axes = fields.pop("axes")
        selection = Sweep(xr.DataArray(tensors["selection"].numpy(), dims=tuple(axes), coords=axes), **fields)
    return tensors["direction"], about, selection


def _old_checksum(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    whole = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].contiguous().numpy().tobytes())
    return whole.hexdigest()
