"""The word files that come with the library, each read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tv_lens.tasks.files import PairFile, parse_pairs, read_column


@cache
def _texts() -> dict[str, str]:
    folder = files("tv_lens.tasks") / "data"
    by_name = {item.name: item for item in folder.iterdir() if item.name.endswith(".tsv")}
    return {name.removesuffix(".tsv"): by_name[name].read_text(encoding="utf-8") for name in sorted(by_name)}


def _is_pairs(text: str) -> bool:
    return any("\t" in line for line in text.splitlines() if not line.startswith("#"))


@cache
def pair_lists() -> tuple[str, ...]:
    """Names of the files that hold pairs."""
    return tuple(name for name, text in _texts().items() if _is_pairs(text))


@cache
def pair_list(name: str) -> PairFile:
    """The pairs of one file."""
    return parse_pairs(_texts()[name], ".tsv", f"data/{name}.tsv", columns=(0, 1))


@cache
def words_of(name: str) -> tuple[str, ...]:
    """The words of a one-column file, such as "words" or "animals"."""
    return read_column(_texts()[name])


def common_words() -> tuple[str, ...]:
    """Common words that belong to no task in particular."""
    return words_of("words")
