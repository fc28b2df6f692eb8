"""Plain words: phrases of a private dialect and names that have been replaced occur nowhere a reader looks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHERE = ("tv_lens", "docs", "notebooks", "benchmarks", "tests", "README.md")
# Where old names are named as such.
ALLOWED = {
    "tests/test_words.py",
    "tests/words/test_renamed.py",
    "tests/circuits/test_old_names.py",
    "tests/circuits/test_scores_file.py",
    "tests/cli/test_application.py",
    "tests/experiments/task_survey/test_result.py",
    "tv_lens/__init__.py",
    "tv_lens/renamed.py",
    "tv_lens/circuits/circuit.py",
    "tv_lens/circuits/scores_file.py",  # opens files of version 0.1
}

PHRASES = [
    r"\bruns? [AB]\b",
    r"\btold apart\b",
    r"\btells? \w+ apart\b",
    r"\bdealt\b",
    r"\bhangs? on\b",
    r"\bis none of ours\b",
    r"where somebody looks",
    r"where nobody (looks|says|knows|sees)",
    r"PAPER\.md",
    r"\b(born|births?|newborn)\b",
    r"\bonce a model\b",
    r"\bone a (prompt|layer|model|position|task|row)\b",
    r"\ba number a (row|prompt)\b",
]
NAMES = [
    r"\b(needs_company|tell_halved|telling_when_full)\b",
    r"\bhides\(|\bpacks\(model",
    r"\b(tokens_b|run_[ab]|grad_at)\b",
    r"\brow_(plan|walk|base|edits|shards)\b",
    r"\b(hook|row) plan\b",
    r"\b(show_progress|RunLike|PLANS)\b",
    r"\bLens(Result|Size)\b",
    r"\btv\.(lens|Run|Setting)\b",
    r"\btv-lens lens\b|\bpack-run\b|--run\b",
    r"\brandom_(seeds|vectors)\b",
    r"\blab\.(runs|steps|log|config)\(",
]
FILES = sorted(
    path
    for where in WHERE
    for path in ([ROOT / where] if (ROOT / where).is_file() else (ROOT / where).rglob("*"))
    if path.suffix in (".py", ".pyi", ".md", ".ipynb") and path.relative_to(ROOT).as_posix() not in ALLOWED
)


def test_there_is_something_to_read():
    assert len(FILES) > 200


@pytest.mark.parametrize("phrase", [*PHRASES, *NAMES])
def test_nobody_meets(phrase):
    pattern = re.compile(phrase)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line) and "renamed" not in line.lower()
    ]
    assert found == []


READ = [path for path in FILES if path.suffix in (".md", ".ipynb") and path.name != "design-notes.md"]
NAMING = [path for path in READ if re.search("smollm2-135m", path.read_text(encoding="utf-8"), re.IGNORECASE)]


@pytest.mark.parametrize("path", NAMING, ids=lambda path: path.name)
def test_the_embedded_model_is_called_what_it_is(path):
    """Where its short name stands, the full one stands beside it; no name leaves out that it is the instructed one."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert "SmolLM2-135M-Instruct, 4-bit (Q4_1), dequantised to float32" in text
    assert not re.search(r"SmolLM2-135M(?!-Instruct)", text)


def test_pages_that_name_the_embedded_model_are_found():
    assert len(NAMING) > 15 and ROOT / "README.md" in NAMING
