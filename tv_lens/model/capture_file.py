"""Captures on disk: one file for all sites, written batch by batch, and mapped so that each site is read when used.

What is mapped is private: changing it changes memory, never the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import FormatError
from tv_lens.site import Site
from tv_lens.storage import envelope, old_files
from tv_lens.storage.atomic import flush, leftover_prefix, plain_errors

KIND = envelope.Kind("capture", "Capture.save(path)")
NAME = "capture.safetensors"  # the file in a folder that store= names
_OLD = "capture.json"  # lay beside one file of numpy per site, before the envelope
_IDS, _MASK = "tokens.ids", "tokens.mask"


class MappedValues(Mapping):  # without its types: whoever checks those reads a value
    """The values of each site, mapped from a file and held against their checksum when they are first used."""

    def __init__(self, path: Path, sites: Mapping[Site, envelope.Place], checksums: Mapping[Site, str]):
        self._path, self._places, self._checksums = path, dict(sites), dict(checksums)
        self._bytes = np.memmap(path, np.uint8, mode="c") if self.nbytes else np.empty(0, np.uint8)
        self._ready: dict[Site, Tensor] = {}

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self._ready:
            place = self._places[site]
            bits = self._bytes[place.begin : place.begin + place.nbytes]
            if envelope.sha256_of(bits.data) != self._checksums[site]:
                raise envelope.damaged(self._path, KIND, f"the checksum of {site} does not fit")
            self._ready[site] = torch.from_numpy(bits).view(place.dtype).reshape(place.shape)
        return self._ready[site]

    def __contains__(self, site: object) -> bool:
        return site in self._places

    def __iter__(self) -> Iterator[Site]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        return sum(place.nbytes for place in self._places.values())


class CaptureWriter:
    """A capture that is written batch by batch, under another name until it is whole.

    Args:
        path: the file.
        tokens: the prompts.
        peak_bytes: what the capture says of its memory.
    """

    def __init__(self, path: Path, tokens: TokenBatch, peak_bytes: int):
        self._path, self._peak_bytes = path, peak_bytes
        self._unfinished = path.with_name(f"{leftover_prefix(path)}unfinished")
        self._tokens = {_IDS: tokens.ids.cpu(), _MASK: tokens.mask.cpu()}
        self._begun = False

    def put(self, rows: slice, values: Mapping[Site, Tensor], n: int) -> None:
        """Writes the values of some of the `n` prompts, which follow those that were written before."""
        with plain_errors(self._path):
            if not self._begun:
                self._begin({str(site): (value.dtype, (n, *value.shape[1:])) for site, value in values.items()})
            for site, value in values.items():
                bits = envelope.bits_of(value.contiguous())
                self._file.seek(self._places[str(site)] + rows.start * (bits.nbytes // max(1, len(value))))
                self._file.write(bits)
                self._sums[str(site)].update(bits)

    def finish(self) -> Path:
        """Seals the file, flushes it to the disk and gives it its name."""
        with plain_errors(self._path):
            self._file.seek(0)
            self._file.write(self._header({name: one.hexdigest() for name, one in self._sums.items()}))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._unfinished, self._path)
            flush(self._path.parent)
        return self._path

    def discard(self) -> None:
        """Removes what was written of a capture that failed."""
        if self._begun:
            self._file.close()
            self._unfinished.unlink(missing_ok=True)

    def _begin(self, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        labels = {"sites": list(shapes), "peak_bytes": self._peak_bytes}
        self._about = envelope.described(KIND, labels)
        self._shapes = {**shapes, **{name: (one.dtype, tuple(one.shape)) for name, one in self._tokens.items()}}
        self._sums = {name: hashlib.sha256() for name in self._shapes}
        begin = len(self._header({name: one.hexdigest() for name, one in self._sums.items()}))
        self._places = {}
        for name in envelope.ordered(self._shapes):
            dtype, shape = self._shapes[name]
            self._places[name], begin = begin, begin + int(np.prod(shape)) * dtype.itemsize
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = open(self._unfinished, "wb")  # noqa: SIM115
        self._begun = True
        self._file.truncate(begin)
        for name, tensor in self._tokens.items():
            bits = envelope.bits_of(tensor.contiguous())
            self._sums[name].update(bits)
            self._file.seek(self._places[name])
            self._file.write(bits)

    def _header(self, checksums: Mapping[str, str]) -> bytes:
        return envelope.header_of(self._about, self._shapes, checksums)


@contextmanager
def opened(
    source: str | os.PathLike[str],
) -> Iterator[tuple[dict[Site, Tensor] | MappedValues, TokenBatch, dict[str, Any]]]:
    """Values, prompts and labels of a capture, from its file or the folder that holds it.

    Raises:
        FormatError: the file is damaged, or the folder holds no whole capture.
        MissingFile: there is neither.
    """
    path = Path(source)
    if path.is_dir() and not (path / NAME).exists():
        if not (path / _OLD).exists():
            raise FormatError(
                "This folder holds no whole capture.",
                got=path,
                allowed=f"a folder with a {NAME}",
                do="capture again: one that was stopped leaves none.",
            )
        with old_files.reading(path, KIND):
            yield _old(path)
        return
    path = path / NAME if path.is_dir() else path
    with envelope.opened(path, KIND) as file:
        sites = {Site.parse(name): name for name in file.labels["sites"]}
        tokens = TokenBatch(file[_IDS], file[_MASK])
        places = {site: file.places[name] for site, name in sites.items()}
        yield (
            MappedValues(path, places, {site: file.checksums[name] for site, name in sites.items()}),
            tokens,
            file.labels,
        )


def _old(folder: Path) -> tuple[dict[Site, Tensor], TokenBatch, dict[str, Any]]:
    """A capture of one file of numpy per site, mapped; version 0.1 wrote NaN where a prompt has no token."""
    contents = json.loads((folder / _OLD).read_text(encoding="utf-8"))
    tokens = TokenBatch(
        torch.tensor(contents["ids"], dtype=torch.long, device="cpu"),
        torch.tensor(contents["mask"], dtype=torch.bool, device="cpu"),
    )
    values = {}
    for site in map(Site.parse, contents["sites"]):
        values[site] = torch.from_numpy(np.load(folder / f"{site}.npy", mmap_mode="c"))
        if contents.get("no_token") != 0 and site.pos is None and tokens.is_padded:
            values[site].masked_fill_(missing(tokens, site, values[site]), 0.0)
    return values, tokens, contents


def missing(batch: TokenBatch, site: Site, value: Tensor) -> Tensor:
    """Where a captured tensor stands for no token: its position axis, broadcastable to the whole."""
    axis = site.entry.axes.index(site.entry.position_axis) if site.head is None else 1
    shape = [len(batch), *(batch.width if i == axis else 1 for i in range(1, value.ndim))]
    return ~batch.mask.view(shape).to(value.device)
