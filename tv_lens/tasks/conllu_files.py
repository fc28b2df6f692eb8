"""Tagged sentences from CoNLL-U files, plain or gzipped, and from the Penn Treebank sample of NLTK."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from tv_lens.errors import InvalidArgument, TaskFileError
from tv_lens.tasks.files import read_bytes
from tv_lens.tasks.pair_faults import clip

FORM = (
    "ten columns parted by tabs (ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC), a blank line after each sentence"
)
SUFFIXES = (".conllu", ".conllu.gz")
_ID = re.compile(r"\d+([-.]\d+)?")


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence with the part of speech of each of its words.

    Args:
        text: the sentence as a prompt shows it.
        words: its words as they are in `text`.
        upos: universal tags, "_" where there is none.
        xpos: the treebank's own tags, "_" where there is none.
    """

    text: str
    words: tuple[str, ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]


def is_conllu(path: str | PathLike[str]) -> bool:
    """Whether a file's name says that it is CoNLL-U; a part of speech may follow it, as in `ewt.conllu#verb`."""
    return str(path).partition("#")[0].lower().endswith(SUFFIXES)


def read_conllu(path: str | PathLike[str]) -> tuple[TaggedSentence, ...]:
    """The sentences of a CoNLL-U file.

    Raises:
        TaskFileError: the file cannot be read; names the line.
    """
    path = Path(path)
    return _parsed(path, read_bytes(path))


_LARGEST = 2**30  # bytes that a gzipped file may unpack to; the largest treebank of Universal Dependencies has 300 MB
_DENSEST = 100  # bytes per byte of a large gzipped file; treebanks have about 6


@lru_cache(maxsize=2)  # the tasks of a family read one treebank again and again
def _parsed(path: Path, data: bytes) -> tuple[TaggedSentence, ...]:
    where = str(path)
    if path.suffix.lower() == ".gz":
        try:
            data = _unpacked(data, where)
        except (OSError, EOFError, zlib.error) as error:
            raise TaskFileError(f"{where} is not a whole gzip file.", got=str(error), do="fetch it again.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise _bad(where, number, "the file is not UTF-8", f"byte 0x{data[error.start]:02x}") from None
    sentences = tuple(_sentence(block, first, where) for first, block in _blocks(text, where))
    if not sentences:
        raise TaskFileError(f"{where} holds no sentences.", got=f"{len(text)} characters", allowed=FORM)
    return sentences


def _unpacked(data: bytes, where: str) -> bytes:
    """The bytes of a gzipped file; a small file may say that it holds more than the memory does."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        unpacked = bytearray()
        while chunk := file.read(2**20):
            unpacked += chunk
            if len(unpacked) > _LARGEST or (len(unpacked) > 2**24 and len(unpacked) > _DENSEST * len(data)):
                raise TaskFileError(
                    f"{where} unpacks to more than a treebank holds.",
                    got=f"{len(data)} bytes that hold more than {len(unpacked)}",
                    allowed=f"{_LARGEST} bytes, and {_DENSEST} times the file's size",
                    do="unpack it yourself, and look at what it is.",
                )
    return bytes(unpacked)


def _blocks(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of each sentence, every one of them checked, and the number of the first."""
    block: list[str] = []
    first = 1
    for number, line in enumerate([*text.replace("\r\n", "\n").split("\n"), ""], start=1):
        if line.strip():
            if not block:
                first = number
            # Written here and not as a function, which would be called for every word of a treebank.
            cells = line.split("\t")
            if line[0] != "#" and (len(cells) != 10 or not cells[1] or not _ID.fullmatch(cells[0])):
                raise _fault(line, cells, number, where)
            block.append(line)
        elif block:
            if any(not line.startswith("#") for line in block):
                yield first, block
            block = []


def _fault(line: str, cells: list[str], number: int, where: str) -> TaskFileError:
    if len(cells) != 10:
        wrong = f"{len(cells)} column{'s' * (len(cells) != 1)} where there should be 10"
        return _bad(where, number, wrong, repr(clip(line)))
    if not _ID.fullmatch(cells[0]):
        return _bad(where, number, "the ID is not a number", repr(clip(cells[0])))
    return _bad(where, number, "the word is empty", repr(clip(line)))


def _sentence(block: list[str], first: int, where: str) -> TaggedSentence:
    import conllu

    # Without the comments, of which `global.columns` would change what the columns mean.
    rows = [(number, line) for number, line in enumerate(block, start=first) if not line.startswith("#")]
    try:
        (tokens,) = conllu.parse("\n".join(line for _, line in rows) + "\n\n")
    except (conllu.exceptions.ParseException, ValueError) as error:
        for number, line in rows:  # finds the line at fault
            try:
                conllu.parse(f"{line}\n\n")
            except (conllu.exceptions.ParseException, ValueError) as fault:
                raise _bad(where, number, "this line cannot be read", clip(str(fault))) from None
        raise _bad(where, first, "this sentence cannot be read", clip(str(error))) from None
    covered = range(0)
    pieces, words, upos, xpos = [], [], [], []
    for (number, line), token in zip(rows, tokens, strict=True):
        whole = token["id"]
        if isinstance(whole, tuple) and whole[1] == "-":  # one written word for several that are not in the text
            covered = range(whole[0], whole[2] + 1)
            if whole[2] - whole[0] >= len(rows):
                wrong = f"the range is longer than its sentence of {len(rows)} lines"
                raise _bad(where, number, wrong, repr(clip(line)))
        elif isinstance(whole, tuple) or whole in covered:
            continue
        words.append(token["form"])
        upos.append("_" if isinstance(whole, tuple) else token["upos"] or "_")
        xpos.append("_" if isinstance(whole, tuple) else token["xpos"] or "_")
        pieces += [token["form"], "" if (token.get("misc") or {}).get("SpaceAfter") == "No" else " "]
    return TaggedSentence("".join(pieces).strip(), tuple(words), tuple(upos), tuple(xpos))


def treebank_sample() -> tuple[TaggedSentence, ...]:
    """The Penn Treebank sentences that NLTK distributes, without traces.

    Raises:
        InvalidArgument: NLTK or its corpus is not installed.
    """
    absent = dict(got="source='ptb'", allowed="a .conllu file, or None for the sentences that come with the library")
    try:
        from nltk.corpus import treebank
    except ImportError as error:
        raise InvalidArgument(
            "The Penn Treebank sample is read by NLTK, which is not installed.",
            do='pip install nltk, then nltk.download("treebank").',
            **absent,
        ) from error
    try:
        tagged: list[list[tuple[str, Any]]] = list(treebank.tagged_sents())
    except LookupError as error:
        raise InvalidArgument(
            "NLTK has no Penn Treebank sample on this machine.",
            do="python -c \"import nltk; nltk.download('treebank')\", once.",
            **absent,
        ) from error
    sentences = [[(word, tag) for word, tag in sentence if tag != "-NONE-"] for sentence in tagged]
    return tuple(
        TaggedSentence(
            " ".join(word for word, _ in one),
            tuple(word for word, _ in one),
            ("_",) * len(one),
            tuple(tag for _, tag in one),
        )
        for one in sentences
        if one
    )


def _bad(where: str, number: int, wrong: str, got: str) -> TaskFileError:
    return TaskFileError(f"{where}, line {number}: {wrong}.", got=got, allowed=FORM)
