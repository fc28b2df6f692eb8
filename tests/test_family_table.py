"""The table of families in the docs is the one that its command makes: a sample is measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = ("family", "class", "loads", "float32", "bfloat16", "causal", "padding", "engine")
SAMPLE = ("bert", "falcon", "gemma4_text", "gpt_neo", "jamba", "llama", "mamba2", "olmo2", "openai-gpt", "qwen3_moe")


@pytest.fixture
def commands(monkeypatch):
    """The command as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import family_table

    return family_table


def rows(text: str) -> dict[str, dict[str, str]]:
    """The rows of a Markdown table by family."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {line[0]: dict(zip(COLUMNS, line)) for line in lines[2:]}


def committed() -> dict[str, dict[str, str]]:
    return rows((ROOT / "docs" / "families.md").read_text(encoding="utf-8"))


def share(cell: str) -> float:
    return float(cell) if cell else 0.0


def test_the_table_has_every_family_that_both_libraries_know(commands):
    assert list(committed()) == commands.families() and len(committed()) >= 60


def test_what_loads_is_causal_and_equal_alone_and_padded():
    loaded = [row for row in committed().values() if row["loads"] == "yes"]
    assert len(loaded) >= 80
    for row in loaded:
        assert share(row["float32"]) <= 1e-4 and share(row["padding"]) <= 1e-4 and share(row["causal"]) <= 1e-5, row
        assert share(row["bfloat16"]) <= 0.1, row


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLE)
def test_a_family_measured_again_gives_its_row(commands, kind):
    fresh, stated = rows("\n" * 2 + "| a |\n| --- |\n" + commands.measured(kind).line())[kind], committed()[kind]
    assert [fresh[column] for column in ("class", "loads")] == [stated[column] for column in ("class", "loads")]
    assert fresh["engine"].partition(":")[0] == stated["engine"].partition(":")[0]  # tests check types and say others
    for column in ("float32", "bfloat16", "causal", "padding"):  # rounding differs between machines
        assert share(fresh[column]) <= max(10 * share(stated[column]), 1e-5)
