"""The work of a verb, shard by shard: read where it is on the disk, claimed by one process, computed and written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tv_lens.errors import FormatError, InvalidArgument
from tv_lens.storage.atomic import atomic_write, leftover_prefix, plain_errors
from tv_lens.storage.manifest import CLAIMS, SHARDS, Begun, old_shard_file, shard_file
from tv_lens.storage.shard_file import Shard, packed, unpacked

_PATIENCE = 0.5  # seconds at most between two looks at shards that another process computes


class Shards:
    """The work of one verb, shard by shard, on the disk or, without a folder, in memory. `shards` makes it.

    Args:
        folder: the folder of the run; None keeps the shards in memory.
        total: how many shards there are.
        begun: what the shards of the folder must be of; None without a folder.

    Attributes:
        damaged: the shards that were damaged on the disk, or of another run, and are computed again.
    """

    def __init__(self, folder: Path | None, total: int, begun: Begun | None = None):
        self.folder, self.total, self.begun = folder, total, begun
        self.damaged: list[int] = []
        self._unsigned: list[int] = []  # shards of format 1, which do not say what they are of
        self._old: list[int] = []  # shards of before the envelope
        self._ready: dict[int, Shard] = {}
        self._claims: dict[int, Any] = {}  # the locks that this process holds
        self._leftovers: list[Path] = []
        if folder is not None:
            unfinished = (folder / SHARDS).glob(f"{leftover_prefix(Path('*'))}*")
            self._leftovers = sorted(path for path in unfinished if path.is_file())
            for i in range(total):
                self._read(i)
            self._warn_of_old()
            self._remove_old_claims()

    def __len__(self) -> int:
        return self.total

    @property
    def done(self) -> list[int]:
        """The shards that are ready."""
        return sorted(self._ready)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the provenance of a result says about its run; empty without a folder."""
        if self.folder is None:
            return {}
        return {"folder": str(self.folder), **({"damaged_shards": self.damaged} if self.damaged else {})}

    def pending(self, in_order: bool = False) -> Iterator[int]:
        """The shards that are not computed yet, one at a time, each for this process alone.

        Where another process works on the same folder, each takes shards that the other has not claimed, and at the
        end waits for the last shards of the other. The claims of a process that died are taken over.

        Args:
            in_order: a shard needs all those before it, so it is yielded only when they are there.
        """
        yielded: set[int] = set()  # a shard that the caller did not put is not yielded again
        patience = _PATIENCE / 50
        while missing := [i for i in range(self.total) if i not in self._ready and i not in yielded]:
            worked = False
            for i in missing[:1] if in_order else missing:
                if not self._claim(i):
                    continue
                worked = True
                try:
                    if not self._read(i):
                        yielded.add(i)
                        yield i
                finally:
                    self._release(i)
            if not worked:  # other processes compute all that is missing
                time.sleep(patience)
                patience = min(2 * patience, _PATIENCE)

    def put(self, i: int, arrays: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Stores a finished shard; with a folder, it is on the disk before this returns.

        Raises:
            StorageError: the disk is full; every shard that was put before is whole.
        """
        if not 0 <= i < self.total:
            raise InvalidArgument("There is no such shard.", got=i, allowed=f"0 to {self.total - 1}")
        shard = Shard.of(arrays, about or {}, None if self.begun is None else self.begun.configuration)
        if self.folder is not None:
            atomic_write(self._file(i), packed(shard, i))
        self._ready[i] = shard

    def get(self, i: int) -> Shard:
        """A shard that is ready."""
        if i not in self._ready:
            raise InvalidArgument(
                "This shard has not been computed.", got=i, allowed=f"{len(self._ready)} of {self.total} are there"
            )
        return self._ready[i]

    def all(self) -> list[Shard]:
        """Every shard, in order.

        Raises:
            InvalidArgument: some are not computed yet.
        """
        return [self.get(i) for i in range(self.total)]

    def release(self) -> None:
        """Releases the claims that this process still holds."""
        for i in list(self._claims):
            self._release(i)

    def _file(self, i: int) -> Path:
        return shard_file(Path(self.folder or ""), i)

    def _read(self, i: int) -> bool:
        """Whether the shard is ready, after a look at the disk; a damaged one causes a warning and is not ready.

        So does a shard of another run: its numbers are whole, and answer another question.
        """
        if i in self._ready or self.folder is None or self.begun is None:
            return i in self._ready
        path = self._file(i)
        is_old = not path.exists() and old_shard_file(self.folder, i).exists()
        try:
            shard = unpacked((old_shard_file(self.folder, i) if is_old else path).read_bytes(), i)
        except FileNotFoundError:
            return False
        except (OSError, FormatError) as error:
            reason = error.got if isinstance(error, FormatError) else error.strerror
            return self._refused(i, f"damaged ({reason})")
        if shard.configuration is None and not self.begun.shards_say_it:
            self._unsigned.append(i)
        elif shard.configuration != self.begun.configuration:
            return self._refused(i, "of another run (it carries the digest of another configuration, or none)")
        if is_old:
            self._old.append(i)
        self._ready[i] = shard
        return True

    def _refused(self, i: int, what: str) -> bool:
        if i not in self.damaged:
            self.damaged.append(i)
            warnings.warn(f"shard {i} of the run {self.folder} is {what}; it is computed again", stacklevel=3)
        return False

    def _warn_of_old(self) -> None:
        if self._old:
            warnings.warn(
                f"{len(self._old)} shards of the run {self.folder} were written by an earlier tv_lens, as .npz; they "
                "are taken, and new ones are written in today's form",
                stacklevel=3,
            )
        if self._unsigned:
            warnings.warn(
                f"{len(self._unsigned)} shards of the run {self.folder} were written before shards said which "
                "configuration they are of; they are taken, because the manifest beside them fits",
                stacklevel=3,
            )

    def _claim(self, i: int) -> bool:
        """Whether this process now holds the claim to compute the shard."""
        if self.folder is None:
            return True
        from filelock import FileLock, Timeout

        path = self.folder / CLAIMS / _claim_name(i)
        with plain_errors(path):
            path.parent.mkdir(exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
        self._claims[i] = lock
        for leftover in self._leftovers:  # of a process that died while it wrote: under the claim no other writes
            if leftover.name.startswith(leftover_prefix(self._file(i))):
                leftover.unlink(missing_ok=True)
        return True

    def _remove_old_claims(self) -> None:
        """Removes the claims of ready shards: their process died after it wrote them and before it released them."""
        present = {path.name for path in (self.folder / CLAIMS).glob("*") if path.is_file()}
        for i in self.done:
            if _claim_name(i) in present and self._claim(i):
                self._release(i)

    def _release(self, i: int) -> None:
        lock = self._claims.pop(i, None)
        if lock is None:
            return
        lock.release()
        if i in self._ready:  # a process that locks the file now reads the shard next, and it is there
            Path(lock.lock_file).unlink(missing_ok=True)


def _claim_name(i: int) -> str:
    return f"{i:05d}"
