"""What chosen sites hold at the last token of many prompts: each prompt run once, what prompts share run once.

Numbers go to a table a site as the passes end. In memory or, for models whose layers do not fit beside one another, in
files of a folder: a killed reading goes on there, and what comes after looks at one layer at a time.
"""

from __future__ import annotations

import json
import os
import time
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
from tv_lens.storage.atomic import atomic_write, flush, plain_errors
from tv_lens.storage.configuration import differences, digest, model_described

MANIFEST, DONE = "readings.json", "done.npy"
_FLUSH = 10.0  # seconds between two moments at which what is on the disk is sure
_STEPS = 50  # how often progress moves in one reading, where prompts are many


class Readings(Mapping[Site, Tensor]):
    """Points by site: `point d` on the host in float32; from files, one site's are in memory while they are used.

    Args:
        tables: what each site holds on each prompt that was run, or the file that holds it.
        owners: the prompt that each point is.
    """

    def __init__(self, tables: Mapping[Site, np.ndarray | Path], owners: Int[Tensor, " point"]):
        self._tables, self._owners = tables, owners

    def __getitem__(self, site: Site | str) -> Float[Tensor, "point d"]:
        site = Site.parse(site)
        if site not in self._tables:
            raise unknown("site that was read", str(site), self._tables)
        held = self._tables[site]
        table = np.load(held, mmap_mode="r") if isinstance(held, Path) else held
        return torch.from_numpy(table[self._owners.numpy()])

    def __iter__(self) -> Iterator[Site]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def of(self, points: Int[Tensor, " chosen"]) -> Readings:
        """The same of some of the points."""
        return Readings(self._tables, self._owners[points])

    def __repr__(self) -> str:
        return f"Readings({len(self)} sites, {len(self._owners)} points)"


def read_rows(
    model: HookedModel,
    rows: Sequence[Sequence[int]],
    sites: Sequence[Site],
    *,
    advance: Callable[[int], object] = lambda steps: None,
    store: str | os.PathLike[str] | None = None,
) -> Readings:
    """What each site holds at the last token of every row, heads laid side by side.

    Rows that begin alike share a pass, and their common tokens are run once; others run in batches of like length.
    Equal rows run once, so that they are one point exactly (rounding differs from batch to batch, and near enough
    neighbours would tell batches apart).

    Args:
        model: to be read.
        rows: the tokens of every point; one that is cut off at another place is another row.
        sites: what is read, each in a layer.
        advance: told how many tokens have been run; over all of them, each different row's.
        store: a folder that keeps the numbers, one file a site, as they come; named again, a reading goes on there.

    Raises:
        RunMismatch: the folder holds another reading.
    """
    places: dict[tuple[int, ...], int] = {}
    owners = torch.tensor([places.setdefault(tuple(row), len(places)) for row in rows])
    unique, sites = list(places), list(dict.fromkeys(sites))
    sizes = {site: floats_of(site.at(-1), 1, model.shape) for site in sites}
    tables: _Tables = (
        _Tables(len(unique), sizes)
        if store is None
        else _Files(
            Path(store),
            len(unique),
            sizes,
            {"model": model_described(model), "sites": [str(site) for site in sites], "rows": digest(unique)},
        )
    )
    advance(sum(len(unique[i]) for i in np.flatnonzero(tables.done)))
    for rows_of, found in _passes(model, unique, sites, np.flatnonzero(~tables.done).tolist()):
        tables.put(rows_of, found)
        advance(sum(len(unique[i]) for i in rows_of))
    tables.close()
    return Readings(tables.tables, owners)


def _passes(
    model: HookedModel, rows: Sequence[tuple[int, ...]], sites: Sequence[Site], missing: Sequence[int]
) -> Iterator[tuple[list[int], dict[Site, Tensor]]]:
    """Which rows were run, and what each site holds at their last tokens, pass after pass."""
    asked = [rows[i] for i in missing]
    together, alone = _planned(model, asked, len(sites))
    for pack in sorted(together, key=len):
        try:
            yield [missing[i] for i in pack.rows], read_pack(model, pack, sites, who="readings")
        except OutOfMemory:
            alone += pack.rows
    mixed = np.random.default_rng(0).permutation(len(alone))  # a batch holds prompts of all classes
    order = sorted((alone[i] for i in mixed.tolist()), key=lambda i: len(asked[i]))
    most, steps = tokens_at_once(model.device), max(16, -(-len(order) // _STEPS))
    while order:
        # Rows come shortest first: the last of a batch is its widest.
        size = next((n for n in range(min(steps, len(order)), 1, -1) if n * len(asked[order[n - 1]]) <= most), 1)
        part, order = order[:size], order[size:]
        found = model.capture(TokenBatch.from_lists([asked[i] for i in part]), sites, pos=-1)
        yield [missing[i] for i in part], {site: found[site] for site in sites}


def _planned(model: HookedModel, rows: Sequence[tuple[int, ...]], n_sites: int) -> tuple[list[Pack], list[int]]:
    """The packs, and the rows that are run on their own: all of them where a pack would not hold what they hold."""
    together, alone = packed(rows, model.shape)
    plain = bool(model.registry.edits_around() or model.registry.foreign_hooks())  # whoever edits counts positions
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
    """A table a site, filled row by row."""

    def __init__(self, n: int, sizes: Mapping[Site, int]):
        self.done = np.zeros(n, dtype=bool)
        self.tables: dict[Site, Any] = self._made(n, sizes)

    def _made(self, n: int, sizes: Mapping[Site, int]) -> dict[Site, np.ndarray] | dict[Site, Path]:
        return {site: np.empty((n, size), np.float32) for site, size in sizes.items()}

    def put(self, rows: list[int], found: Mapping[Site, Tensor]) -> None:
        for site, table in self.tables.items():
            table[rows] = found[site].reshape(len(rows), -1).numpy()
        self.done[rows] = True

    def close(self) -> None:
        pass


class _Files(_Tables):
    """Tables in the files of a folder, marked as done only once they are sure to be on the disk."""

    def __init__(self, folder: Path, n: int, sizes: Mapping[Site, int], config: dict[str, Any]):
        self._folder, self._known = folder, _holds(folder, config)
        with plain_errors(folder / MANIFEST):
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(n, sizes)
            atomic_write(folder / MANIFEST, json.dumps(config, indent=1) + "\n")
        if self._known and (folder / DONE).exists():
            self.done = np.load(folder / DONE)
        self._pending: list[int] = []
        self._sure = time.monotonic()

    def _made(self, n: int, sizes: Mapping[Site, int]) -> dict[Site, Path]:
        paths = {site: self._folder / f"{site}.npy" for site in sizes}
        if not self._known or not all(path.exists() for path in paths.values()):
            (self._folder / DONE).unlink(missing_ok=True)
            for site, path in paths.items():
                np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, sizes[site]))
        tables = {site: np.load(path, mmap_mode="r") for site, path in paths.items()}
        for site, table in tables.items():
            if table.shape != (n, sizes[site]) or table.dtype != np.float32:
                raise FormatError(
                    "A file of these readings is damaged.",
                    got=f"{paths[site]}: {table.dtype} {table.shape}",
                    allowed=f"float32 {(n, sizes[site])}",
                    do="remove the folder, or name another.",
                )
        self._begins = {site: table.offset for site, table in tables.items()}
        return paths

    def put(self, rows: list[int], found: Mapping[Site, Tensor]) -> None:
        """Written at their places, not through a map of the file, whose pages would stay in memory."""
        with plain_errors(self._folder / DONE):
            for site, path in self.tables.items():
                values = found[site].reshape(len(rows), -1).numpy()
                with open(path, "r+b") as file:
                    for row, value in zip(rows, values):
                        file.seek(self._begins[site] + row * value.nbytes)
                        file.write(value.tobytes())
        self._pending += rows
        if time.monotonic() - self._sure > _FLUSH:
            self.close()

    def close(self) -> None:
        """Brings everything to the disk, then says so."""
        with plain_errors(self._folder / DONE):
            for path in self.tables.values():
                flush(path)
            self.done[self._pending] = True
            self._pending = []
            atomic_write(self._folder / DONE, lambda file: np.save(file, self.done))
        self._sure = time.monotonic()


def _holds(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds this reading already; False if it holds nothing."""
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if MANIFEST not in held:
        if any(not name.endswith(".npy") for name in held):
            raise InvalidArgument(
                "The folder for readings holds other files.",
                got=f"{folder}: {', '.join(held[:5])}",
                allowed="an empty folder, a new one, or one that a reading was begun in",
            )
        return False
    try:
        kept = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(
            "The manifest of these readings is damaged.",
            got=str(folder / MANIFEST),
            do="remove the folder, or name another.",
        ) from error
    found = differences(kept, json.loads(json.dumps(config)))
    if found:
        raise RunMismatch(
            "This folder holds another reading.",
            got=f"{folder}: {'; '.join(found[:5])}",
            allowed="the reading that it was begun with",
            do="name another folder with store=.",
        )
    return True
