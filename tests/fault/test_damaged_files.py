"""Text files, manifests and logs, damaged at random: an error of the house, or what an independent reader finds.

`FORMATS` is the table; another format is one line more. Files of the envelope are in test_saved_files.py. A file of
pairs has no checksum, since people write it: a flipped letter is another pair. There the reference reads the damaged
file, too, by the json and csv modules or by splitting lines; where it cannot, the library must not either.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import re
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny_gguf
from scored_circuits import SHAPE, SPANS, scored
from squares import square
from tiny_conllu import WHOLE, conllu
from tv_lens import RunFolder, task
from tv_lens.circuits import Circuit, Graph
from tv_lens.errors import FormatError, TVLensError
from tv_lens.lab import TrainingRun, preset
from tv_lens.loading import gguf
from tv_lens.loading.folder_cache import CachedFolder
from tv_lens.loading.gguf_config import check_readable
from tv_lens.loading.gguf_header import read_header
from tv_lens.tasks.conllu_files import read_conllu

PAIRS = [("go", "went"), ("Zürich, old", 'a "b"'), ("three", "3"), ("tree", "12345"), ("e", "f g"), ("see", "saw")]
MOST_SECONDS, MOST_BYTES = 5, 2 * 2**30


@dataclass(frozen=True)
class Format:
    """A format: how one is written into a folder, how it is read, and what else its bytes may mean.

    Args:
        write: writes one into a folder; returns the file that is damaged.
        read: what the library finds, to be compared.
        reference: what another reader finds in the (damaged) bytes; raises where it finds nothing. If None, only what
            the undamaged file held is right.
        begins: whether the beginning of what was held is right, too: a log that is cut at a line's end is a whole one.
        checked: False where the bytes carry neither text nor checksum, so that only bare errors are looked for.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    reference: Callable[[bytes], Any] | None = None
    begins: bool = False
    checked: bool = True

    def is_right(self, found: Any, held: Any, content: bytes) -> bool:
        if not self.checked or found == held:
            return True
        if self.begins and found == held[: len(found)]:
            return True
        try:
            return self.reference is not None and found == self.reference(content)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, csv.Error):
            return False


# ---- files of pairs ---------------------------------------------------------------------------------------------


def pairs_in(path: Path) -> dict[str, str]:
    return task(path).lookup


def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) < len(set(members)):
        raise ValueError("a key twice, with two values")
    return dict(members)


def listed(rows: list[Any]) -> dict[str, str]:
    """The pairs of rows; raises where an input has two answers."""
    found: dict[str, str] = {}
    for row in rows:
        source, answer = (str(one).strip() for one in row)
        if found.setdefault(source, answer) != answer:
            raise ValueError("two answers")
    return found


def of_json(content: bytes) -> dict[str, str]:
    value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=once)
    rows = list(value.items()) if isinstance(value, dict) else value
    return listed([(row["input"], row["output"]) if isinstance(row, dict) else row for row in rows])


def of_lines(content: bytes) -> dict[str, str]:
    return of_json(b"[" + b",".join(line for line in content.splitlines() if line.strip()) + b"]")


def of_table(mark: str) -> Callable[[bytes], dict[str, str]]:
    """Under a header, by the csv module; comments and rows that begin with `#` are left to the tests of tables."""

    def read(content: bytes) -> dict[str, str]:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        quoting = csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL
        how = dict(delimiter=mark, quoting=quoting, strict=True, skipinitialspace=mark != "\t")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), **how) if any(cell.strip() for cell in row)]
        names = [name.strip().lower() for name in rows[0]]
        columns = names.index("input"), names.index("output")
        return listed([[row[column] for column in columns] for row in rows[1:]])

    return read


def of_conllu(content: bytes) -> list[list[str]]:
    """Words and tags of each sentence, by splitting lines."""
    found = []
    for block in re.split(r"\n[ \t\v\f]*(?=\n)", content.decode("utf-8-sig").replace("\r\n", "\n")):
        rows = [line.split("\t") for line in block.split("\n") if line.strip() and not line.startswith("#")]
        covered, words = range(0), []
        for row in rows:
            if "-" in row[0]:
                first, _, last = row[0].partition("-")
                covered = range(int(first), int(last) + 1)
                words.append([row[1], "_"])
            elif "." not in row[0] and int(row[0]) not in covered:
                words.append([row[1], row[3] or "_"])
        if words:
            found.append(words)
    return found


def sentences_in(path: Path) -> list[list[list[str]]]:
    return [[[word, tag] for word, tag in zip(one.words, one.upos)] for one in read_conllu(path)]


TREEBANK = conllu(*WHOLE[:3]) + "1-2\tdon't" + "\t_" * 8 + "\n1\tdo" + "\t_" * 8 + "\n2\tn't" + "\t_" * 8 + "\n\n"


# ---- manifests and logs -----------------------------------------------------------------------------------------


def write_manifest(folder: Path) -> Path:
    square(folder / "run")
    return folder / "run" / "manifest.json"


def manifest_in(path: Path) -> Any:
    manifest = RunFolder(path.parent).manifest
    return {name: manifest[name] for name in ("verb", "total", "config", "circumstances", "created")}


def training(folder: Path) -> TrainingRun:
    run = TrainingRun(folder / "run")
    with run.held(preset("tiny")):
        for step in range(6):
            run.log_line({"step": step, "kind": "training", "mse": [0.5 + step, 1 / 3]})
    return run


def log_in(path: Path) -> list[Any]:
    return TrainingRun(path.parent).log().values.tolist()


def write_cached(folder: Path) -> Path:
    def fill(path: Path) -> None:
        (path / "config.json").write_text('{"a": 1}')

    return CachedFolder("made", hashlib.sha256(b"").hexdigest()).ensure(fill, "a model") / "manifest.json"


def cached_in(path: Path) -> bool:
    damage = CachedFolder("made", hashlib.sha256(b"").hexdigest()).damage()
    if damage is not None:
        raise FormatError(damage)  # it is said, and the folder is made again
    return True


# ---- the table --------------------------------------------------------------------------------------------------


def text(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content.encode())
        return folder / name

    return write


def table(mark: str) -> str:
    cells = [('"' + cell.replace('"', '""') + '"' if set(cell) & set(',;"') else cell for cell in row) for row in PAIRS]
    return f"input{mark}output\n" + "".join(mark.join(row) + "\n" for row in cells)


def write_gzipped(folder: Path) -> Path:
    (folder / "a.conllu.gz").write_bytes(gzip.compress(TREEBANK.encode(), mtime=0))
    return folder / "a.conllu.gz"


def write_gguf(folder: Path) -> Path:
    tiny_gguf.write(folder / "tiny.gguf")
    (folder / "head.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:9000])
    return folder / "tiny.gguf"


def gguf_in(path: Path) -> Any:
    with gguf._reading(path):
        header = read_header(path)
        check_readable(header)
        return header.kinds


def circuit_in(path: Path) -> Any:
    one = Circuit.from_json(path)
    return one.mask.tolist(), one.scores.values.numpy().tobytes(), one.provenance


def circuit_text() -> str:
    return scored(Graph(SHAPE, positions=SPANS)).top(20).to_json()


OBJECTS = json.dumps([{"input": x, "output": y, "n": i} for i, (x, y) in enumerate(PAIRS)], indent=1)
FORMATS = {
    "pairs as JSON": Format(text("a.json", OBJECTS), pairs_in, of_json),
    "pairs as lists": Format(text("a.json", json.dumps(PAIRS)), pairs_in, of_json),
    "pairs as one object": Format(text("a.json", json.dumps(dict(PAIRS), ensure_ascii=False)), pairs_in, of_json),
    "pairs as JSON Lines": Format(text("a.jsonl", "\n".join(map(json.dumps, PAIRS))), pairs_in, of_lines),
    "pairs as CSV": Format(text("a.csv", table(",")), pairs_in, of_table(",")),
    "pairs as CSV with ;": Format(text("a.csv", table(";")), pairs_in, of_table(";")),
    "pairs as TSV": Format(
        text("a.tsv", "input\toutput\n" + "".join(f"{x}\t{y}\n" for x, y in PAIRS)), pairs_in, of_table("\t")
    ),
    "treebank": Format(text("a.conllu", TREEBANK), sentences_in, of_conllu),
    "gzipped treebank": Format(write_gzipped, sentences_in),
    "circuit as JSON": Format(lambda folder: text("c.json", circuit_text())(folder), circuit_in),
    "manifest of a run": Format(write_manifest, manifest_in),
    "config of a training run": Format(
        lambda folder: training(folder).path / "config.json", lambda path: TrainingRun(path.parent).config.to_json()
    ),
    "log of a training run": Format(lambda folder: training(folder).path / "log.jsonl", log_in, begins=True),
    "manifest of the cache": Format(write_cached, cached_in),
    "header of a GGUF": Format(write_gguf, gguf_in, checked=False),
}


# ---- damage -----------------------------------------------------------------------------------------------------

NUMBER, MEMBER = re.compile(rb"\d+(\.\d+)?"), re.compile(rb'"[^"\n]{1,40}"\s*:\s*("[^"\n]*"|[-\d.]+)')
NUMBERS = [b"9" * 5000, b"1e999", b"-1", b"NaN", b"99999999999999", b"1-99999999999", b"0", b"true", b"null", b'"5"']
STRANGE = [
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"\\ud800",
    b"\\",
    b'"',
    b"\t",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\0",
    b"#",
    b"\xff",
]
STRANGE += [
    "\N{ZERO WIDTH SPACE}".encode(),
    "e\N{COMBINING ACUTE ACCENT}".encode(),
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b" ",
]


def harmed(content: bytes, draw: random.Random) -> bytes:
    """The content with one or two damages: of bits, of blocks, of numbers, keys and values."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2])):
        at, size = draw.randrange(len(changed)), draw.choice([1, 3, 16, 200])
        how = draw.choice(["bit", "bit", "cut", "removed", "twice", "zeros", "number", "member", "swapped", "strange"])
        found = list((NUMBER if how == "number" else MEMBER).finditer(changed))
        if how == "bit":
            changed[at] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del changed[max(1, at) :]
        elif how == "removed":
            del changed[at : at + size]
        elif how == "twice":
            changed[at:at] = changed[at : at + size]
        elif how == "zeros":
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        elif how == "number" and found:
            one = draw.choice(found)
            changed[one.start() : one.end()] = draw.choice(NUMBERS)
        elif how == "member" and found:
            one = draw.choice(found)
            changed[one.start() : one.start()] = one[0] + b", "
        elif how == "swapped" and len(found) > 1:
            one, other = sorted(draw.sample(found, 2), key=lambda member: member.start())
            changed[other.start() : other.end()], changed[one.start() : one.end()] = one[0], other[0]
        else:
            changed[at:at] = draw.choice(STRANGE)
        changed = changed or bytearray(b"x")
    return bytes(changed)


def outcomes(one: Format, path: Path, n: int) -> Counter[str]:
    """What became of so many damaged files; what was raw or wrong is listed with the damage that shows it."""
    whole, held, draw, counts = path.read_bytes(), one.read(path), random.Random(0), Counter()
    for i in range(n):
        content = harmed(whole, draw)
        path.write_bytes(content)
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a warning is said, too
                found = one.read(path)
        except (TVLensError, UserWarning):
            counts["refused"] += 1
        except Exception as error:
            counts[f"raw: {i} {type(error).__name__}: {str(error)[:80]}"] += 1
        else:
            right = one.is_right(found, held, content)
            counts["right" if right else f"silently wrong: {i} {str(found)[:200]}"] += 1
        if time.process_time() - began > MOST_SECONDS:
            counts[f"slow: {i}"] += 1
        path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)
    assert one.read(path) == held
    return counts


def check(name: str, folder: Path, n: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = outcomes(FORMATS[name], FORMATS[name].write(folder), n)
    kinds = Counter(dict.fromkeys(("refused", "right", "raw", "silently wrong", "slow"), 0))
    for key, count in counts.items():
        kinds[key.partition(":")[0]] += count
    print(f"{name}: tried {n}, " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    wrong = [key for key in counts if key not in ("refused", "right")]
    assert not wrong, "\n".join(wrong)
    assert kinds["refused"] > n / 8
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < MOST_BYTES


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_refused_or_read_as_it_is(name, tmp_path):
    check(name, tmp_path, 80)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_damaged_files_of_each_format(name, tmp_path):
    check(name, tmp_path, 1000)


def test_the_check_would_find_a_reader_that_is_raw_or_wrong(tmp_path):
    """The json module as a reader: bare errors, and values that a checksum would have refused."""
    naive = Format(text("a.json", OBJECTS), lambda path: json.loads(path.read_text()))
    counts = outcomes(naive, naive.write(tmp_path), 80)
    assert any(key.startswith("raw") for key in counts) and any(key.startswith("silently wrong") for key in counts)
