"""Rows in shards: cut in the same way whatever is finished already, and with the same values."""

from __future__ import annotations

import random

import pytest
import torch

import tv_lens as tv
from row_cases import batch, two_logits, zeroing
from tv_lens.metrics import Answers, Readout
from tv_lens.rows import sharding
from tv_lens.rows.engine import run_rows
from tv_lens.rows.sharding import added, cut_rows, run_parts, run_sharded
from tv_lens.storage.run_folder import RunFolder
from tv_lens.storage.runner import Work


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("tokens", [1, 40, 200, 10**6])
def test_every_row_is_in_one_shard_and_no_shard_is_too_large(whole, tokens):
    draw = random.Random(tokens)
    lengths = [draw.randrange(4, 30) for _ in range(12)]
    prompts = [draw.randrange(12) for _ in range(300)]
    starts = [draw.randrange(lengths[prompt]) for prompt in prompts]
    parts = cut_rows(prompts, starts, lengths, whole=whole, tokens=tokens, most_prompts=3)
    assert sorted(row for part in parts for row in part) == list(range(300))
    for part in parts:
        held = {prompts[row] for row in part}
        costs = [lengths[prompts[row]] if whole else lengths[prompts[row]] - starts[row] for row in part]
        base = 0 if whole else sum(lengths[prompt] for prompt in held)
        assert len(held) <= 3
        assert len(part) == 1 or base + sum(costs) <= tokens + max(costs)
    if tokens == 10**6:
        assert len(parts) == -(-len(set(prompts)) // 3)


def test_rows_of_one_start_stay_together_and_prompts_of_one_length():
    prompts, starts = [0] * 20 + [1] * 20 + [2] * 20, [at for _ in range(3) for at in range(4) for _ in range(5)]
    parts = cut_rows(prompts, starts, [8, 4, 8], tokens=10**6)
    assert [prompts[row] for row in parts[0]] == [1] * 20 + [0] * 20 + [2] * 20  # by length
    for part in cut_rows(prompts, starts, [8, 4, 8], tokens=40):
        assert sorted(starts[row] for row in part) == [starts[row] for row in part]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_shards_of_rows_are_the_rows(family, tiny_model, monkeypatch, tmp_path):
    model, rows = tiny_model(family), zeroing()
    seen = torch.zeros(len(rows))

    def readout(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen[index] = logits.max(dim=1).values
        return two_logits(logits, index)

    plain, largest = run_rows(model, model.tokens(batch()), rows, readout).values, seen.clone()
    asked = dict(who="test", beside={"seen": seen})
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 60)
    without = run_sharded(Work("zeroing", {}), model, model.tokens(batch()), rows, readout, **asked)
    torch.testing.assert_close(without.values, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen, largest, atol=1e-5, rtol=0)
    bits = without.values.numpy().tobytes(), seen.numpy().tobytes()
    for _ in range(2):  # computed, then read
        seen.zero_()
        kept = run_sharded(Work("zeroing", {}, tmp_path), model, model.tokens(batch()), rows, readout, **asked)
        assert (kept.values.numpy().tobytes(), seen.numpy().tobytes()) == bits
        assert kept.provenance["rows"] == len(rows) and kept.provenance["folder"] == str(tmp_path)
    assert tv.RunFolder(tmp_path).total > 2


def test_a_readout_of_answers_stays_narrow_in_shards(tiny_model, monkeypatch):
    model, rows = tiny_model("llama"), zeroing()
    owners = torch.tensor([row.prompt for row in rows])
    readout = Readout(tv.metrics.logit_diff, Answers(torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11, 12])), owners)
    whole = run_rows(model, model.tokens(batch()), rows, readout).values
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 60)
    found = run_sharded(Work("x", {}), model, model.tokens(batch()), rows, readout, who="test")
    torch.testing.assert_close(found.values, whole, atol=1e-5, rtol=0)


def test_rows_that_are_made_shard_by_shard_are_the_rows_beside_what_is_noted_of_them(tiny_model, tmp_path):
    model, rows = tiny_model("llama"), zeroing()
    expected = run_rows(model, model.tokens(batch()), rows, two_logits).values
    numbers = list(range(len(rows)))
    parts, made = [numbers[::2], numbers[1::2]], []

    for folder in (None, tmp_path, tmp_path):
        noted = torch.full((len(rows),), torch.nan)

        def questions(part):
            made.append(len(part))
            noted[part] = 2.0 * torch.tensor(part)
            return [rows[i] for i in part], two_logits

        work, beside = Work("parts", {}, folder), {"noted": noted}
        found = run_parts(work, model, model.tokens(batch()), parts, questions, who="test", beside=beside)
        torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=0)
        assert noted.tolist() == [2.0 * i for i in numbers] and found.provenance["rows"] == len(rows)
    assert made == 2 * [len(part) for part in parts] and RunFolder(tmp_path).total == 2


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_the_engine_is_the_one_that_was_asked_for(engine, tiny_model):
    model, rows = tiny_model("llama"), zeroing()
    expected = run_rows(model, model.tokens(batch()), rows, two_logits).values
    found = run_sharded(Work("x", {}), model, model.tokens(batch()), rows, two_logits, who="test", engine=engine)
    assert found.provenance["engine"] == engine and found.values.shape == expected.shape
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=0)


def test_the_provenance_of_shards_adds_up():
    one = {"engine": "rows", "rows": 3, "walks": 2, "base_runs": 1, "estimated_peak_bytes": 10, "seconds": 0.25}
    two = {"engine": "rows", "rows": 4, "walks": 1, "base_runs": 1, "estimated_peak_bytes": 7, "seconds": 0.5}
    assert added(added({}, one), two) == {
        "engine": "rows",
        "rows": 7,
        "walks": 3,
        "base_runs": 2,
        "estimated_peak_bytes": 10,
        "seconds": 0.75,
    }
