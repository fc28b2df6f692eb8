"""The smallest run: each shard holds the square of its number. And what a run's folder holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tv_lens as tv
from tv_lens.storage.run_folder import FolderLike, shards

CONFIG = {"model": {"fingerprint": "abc", "dtype": "float32"}, "seed": 0, "metric": tv.metrics.logit_diff}


def square(folder: FolderLike, total: int = 4, config: dict = CONFIG, verb: str = "squares") -> list[int]:
    """The shards that had to be computed, once all of them are there and right."""
    with shards(folder, verb=verb, config=config, total=total) as work:
        computed = []
        for i in work.pending():
            work.put(i, {"square": np.float32(i) ** 2}, {"i": i})
            computed.append(i)
        assert [float(shard["square"]) for shard in work.all()] == [i * i for i in range(total)]
        assert [shard.about for shard in work.all()] == [{"i": i} for i in range(total)]
    return computed


def truncate(path: Path) -> None:
    """Cuts the end of a file off, as a copy does that was stopped."""
    path.write_bytes(path.read_bytes()[:-40])


def files(run: Path) -> dict[int, bytes]:
    """The bytes of each shard that is on the disk."""
    return {int(path.stem): path.read_bytes() for path in (run / "shards").glob("[0-9]*.safetensors")}
