"""Activation tables: what chosen sites hold at the last token of many prompts, one table per site.

Every different prompt is run once, and tokens that prompts have in common are run once. The tables are filled as the
passes end, in memory or, for models whose layers do not fit in memory together, in the files of a folder. A killed
process continues there, and what uses the table then has one layer in memory at a time.
"""

from __future__ import annotations

import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import FormatError, InvalidArgument, OutOfMemory, RunMismatch, unknown
from tv_lens.model.capture import floats_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import tokens_at_once
from tv_lens.rows.packing import Pack, fits, packed, packing_is_exact, read_pack
from tv_lens.site import Site
from tv_lens.storage import envelope, old_files
from tv_lens.storage.atomic import atomic_write, flush, plain_errors
from tv_lens.storage.configuration import differences, digest, model_described

MANIFEST, DONE, OLD_DONE = "readings.json", "done.safetensors", "done.npy"
KIND = envelope.Kind("activation_table", "a verb with store=")
_FLUSH = 10.0  # seconds between two flushes, each of which marks rows as safe on the disk
_STEPS = 50  # about how often the progress bar moves while a large table is filled


class ActivationTable(Mapping[Site, Tensor]):
    """What each site holds at each point: `point d` on the host in float32, loaded site by site where it is in files.

    Args:
        tables: by site, one row per prompt that was run; or the file that holds them.
        owners: the row of each point.
    """

    def __init__(self, tables: Mapping[Site, np.ndarray | Path], owners: Int[Tensor, " point"]):
        self._tables, self._owners = tables, owners

    def __getitem__(self, site: Site | str) -> Float[Tensor, "point d"]:
        site = Site.parse(site)
        if site not in self._tables:
            raise unknown("site that was read", str(site), self._tables)
        table = self._tables[site]
        if isinstance(table, Path):
            table = np.load(table, mmap_mode="r")
        return torch.from_numpy(table[self._owners.numpy()])

    def __iter__(self) -> Iterator[Site]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def of(self, points: Int[Tensor, " chosen"]) -> ActivationTable:
        """The same table for some of the points."""
        return ActivationTable(self._tables, self._owners[points])

    def __repr__(self) -> str:
        return f"ActivationTable({len(self)} sites, {len(self._owners)} points)"


def read_rows(
    model: HookedModel,
    rows: Sequence[Sequence[int]],
    sites: Sequence[Site],
    *,
    advance: Callable[[int], object] = lambda steps: None,
    store: str | os.PathLike[str] | None = None,
) -> ActivationTable:
    """What each site holds at the last token of every row, with the heads of a site concatenated.

    Rows that begin alike share a pass, in which their common tokens are run once; other rows run in batches of similar
    length. Equal rows are run once and so give exactly the same point: rounding differs from batch to batch, and
    nearest neighbours could otherwise depend on the batch.

    Args:
        model: the model that is run.
        rows: the tokens of every point; a row that ends earlier or later than another is a different row.
        sites: the sites to record, each in a layer.
        advance: called with the number of tokens of the rows that a pass has finished; each different row counts once.
        store: a folder that keeps the table, one file per site; if it is given again, the work continues there.

    Raises:
        RunMismatch: the folder holds another table.
    """
    places: dict[tuple[int, ...], int] = {}
    owners = torch.tensor([places.setdefault(tuple(row), len(places)) for row in rows], dtype=torch.long, device="cpu")
    unique, sites = list(places), list(dict.fromkeys(sites))
    sizes = {site: floats_of(site.at(-1), 1, model.shape) for site in sites}
    tables: _Tables = (
        _Tables(len(unique), sizes)
        if store is None
        else _TablesInFiles(
            Path(store),
            len(unique),
            sizes,
            {"model": model_described(model), "sites": [str(site) for site in sites], "rows": digest(unique)},
        )
    )
    advance(sum(len(unique[i]) for i in np.flatnonzero(tables.done)))
    for indices, values in _passes(model, unique, sites, np.flatnonzero(~tables.done).tolist()):
        tables.put(indices, values)
        advance(sum(len(unique[i]) for i in indices))
    tables.close()
    return ActivationTable(tables.tables, owners)


def _passes(
    model: HookedModel, rows: Sequence[tuple[int, ...]], sites: Sequence[Site], missing: Sequence[int]
) -> Iterator[tuple[list[int], dict[Site, Tensor]]]:
    """The rows of each pass, and what each site holds at their last tokens."""
    waiting = [rows[i] for i in missing]
    together, alone = _planned(model, waiting, len(sites))
    for pack in sorted(together, key=len):
        try:
            yield [missing[i] for i in pack.rows], read_pack(model, pack, sites, who="activation table")
        except OutOfMemory:
            alone += pack.rows
    mixed = np.random.default_rng(0).permutation(len(alone))  # so that a batch has prompts of all classes
    order = sorted((alone[i] for i in mixed.tolist()), key=lambda i: len(waiting[i]))
    most, steps = tokens_at_once(model.device), max(16, -(-len(order) // _STEPS))
    while order:
        # Rows come shortest first, so the last row of a batch is its longest.
        size = next((n for n in range(min(steps, len(order)), 1, -1) if n * len(waiting[order[n - 1]]) <= most), 1)
        part, order = order[:size], order[size:]
        values = model.capture(TokenBatch.from_lists([waiting[i] for i in part]), sites, pos=-1)
        yield [missing[i] for i in part], {site: values[site] for site in sites}


def _planned(model: HookedModel, rows: Sequence[tuple[int, ...]], n_sites: int) -> tuple[list[Pack], list[int]]:
    """The packs, and the rows that are run on their own; no packs where packing would not be exact."""
    together, alone = packed(rows, model.shape)
    plain = bool(
        model.registry.edits_around() or model.registry.foreign_hooks()
    )  # edits count positions in whole prompts
    if together and (plain or not packing_is_exact(model)):
        return [], list(range(len(rows)))
    fitting: list[Pack] = []
    for pack in together:
        if fits(model, pack, n_sites):
            fitting.append(pack)
        else:
            alone += pack.rows
    return fitting, alone


class _Tables:
    """One table per site, in memory, filled as rows are run."""

    def __init__(self, n: int, sizes: Mapping[Site, int]):
        self.done = np.zeros(n, dtype=bool)
        self.tables: dict[Site, Any] = self._made(n, sizes)

    def _made(self, n: int, sizes: Mapping[Site, int]) -> dict[Site, np.ndarray] | dict[Site, Path]:
        return {site: np.empty((n, size), np.float32) for site, size in sizes.items()}

    def put(self, rows: list[int], values: Mapping[Site, Tensor]) -> None:
        for site, table in self.tables.items():
            table[rows] = values[site].reshape(len(rows), -1).numpy()
        self.done[rows] = True

    def close(self) -> None:
        pass


class _TablesInFiles(_Tables):
    """Tables in the files of a folder; a row is marked as done only once it is safe on the disk."""

    def __init__(self, folder: Path, n: int, sizes: Mapping[Site, int], config: dict[str, Any]):
        self._folder, self._known = folder, _holds(folder, config)
        with plain_errors(folder / MANIFEST):
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(n, sizes)
            atomic_write(folder / MANIFEST, json.dumps(config, indent=1) + "\n")
        self._sums = np.zeros((n, len(sizes)), np.uint32)  # the checksum of each row of each site
        if self._known:
            self._resume()
        self._pending: list[int] = []
        self._sure = time.monotonic()

    def _resume(self) -> None:
        """Marks the rows that an earlier call has finished, without those that have changed since."""
        if (self._folder / DONE).exists():
            with envelope.opened(self._folder / DONE, KIND) as file:
                self.done, self._sums = file["done"].numpy(), file["sums"].numpy()
                if self._sums.shape != (len(self.done), len(self.tables)):
                    raise ValueError(f"{list(self._sums.shape)} checksums")
        elif (self._folder / OLD_DONE).exists():
            with old_files.reading(self._folder / OLD_DONE, KIND):
                self.done = np.load(self._folder / OLD_DONE).astype(bool, casting="no").reshape(self._sums.shape[0])
        else:
            return
        changed = np.zeros_like(self.done)
        for column, path in enumerate(self.tables.values()):
            table = np.load(path, mmap_mode="r")
            for row in np.flatnonzero(self.done):
                found = zlib.crc32(table[row])
                if (self._folder / DONE).exists():
                    changed[row] |= found != self._sums[row, column]
                self._sums[row, column] = found
        if changed.any():
            self.done[changed] = False
            warnings.warn(
                f"{changed.sum()} rows of the activation table in {self._folder} are damaged; they are run again",
                stacklevel=4,
            )

    def _made(self, n: int, sizes: Mapping[Site, int]) -> dict[Site, Path]:
        paths = {site: self._folder / f"{site}.npy" for site in sizes}
        if not self._known or not all(path.exists() for path in paths.values()):
            for name in (DONE, OLD_DONE):
                (self._folder / name).unlink(missing_ok=True)
            for site, path in paths.items():
                np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, sizes[site]))
        tables = {site: _mapped(path) for site, path in paths.items()}
        for site, table in tables.items():
            if table.shape != (n, sizes[site]) or table.dtype != np.float32:
                raise FormatError(
                    "A file of this activation table is damaged.",
                    got=f"{paths[site]}: {table.dtype} {table.shape}",
                    allowed=f"float32 {(n, sizes[site])}",
                    do="remove the folder, or name another.",
                )
        self._begins = {site: table.offset for site, table in tables.items()}
        return paths

    def put(self, rows: list[int], values: Mapping[Site, Tensor]) -> None:
        """Writes the rows at their places; a map of the file would keep its pages in memory."""
        with plain_errors(self._folder / DONE):
            for column, (site, path) in enumerate(self.tables.items()):
                table = values[site].reshape(len(rows), -1).numpy()
                with open(path, "r+b") as file:
                    for row, value in zip(rows, table):
                        self._sums[row, column] = zlib.crc32(value.tobytes())
                        file.seek(self._begins[site] + row * value.nbytes)
                        file.write(value.tobytes())
        self._pending += rows
        if time.monotonic() - self._sure > _FLUSH:
            self.close()

    def close(self) -> None:
        """Flushes every file to the disk, then marks its rows as done."""
        with plain_errors(self._folder / DONE):
            for path in self.tables.values():
                flush(path)
            self.done[self._pending] = True
            self._pending = []
            labels = {"sites": [str(site) for site in self.tables]}
            envelope.write(self._folder / DONE, KIND, {"done": self.done, "sums": self._sums}, labels)
            (self._folder / OLD_DONE).unlink(missing_ok=True)
        self._sure = time.monotonic()


def _mapped(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r")
    except Exception as error:
        raise FormatError(
            "A file of this activation table is damaged.",
            got=f"{path} ({error})",
            do="remove the folder, or name another.",
        ) from error


def _holds(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds this table already; False if it is empty."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if MANIFEST not in names:
        if any(not name.endswith(".npy") for name in names):
            raise InvalidArgument(
                "The folder for an activation table holds other files.",
                got=f"{folder}: {', '.join(names[:5])}",
                allowed="an empty folder, a new one, or one in which an activation table was begun",
            )
        return False
    try:
        recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(recorded, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise FormatError(
            "The manifest of this activation table is damaged.",
            got=str(folder / MANIFEST),
            do="remove the folder, or name another.",
        ) from error
    changed = differences(recorded, json.loads(json.dumps(config)))
    if changed:
        raise RunMismatch(
            "This folder holds another activation table.",
            got=f"{folder}: {'; '.join(changed[:5])}",
            allowed="the table that it was begun with",
            do="name another folder with store=.",
        )
    return True
