"""Rows in shards: cut alike whatever is done, the same values; and what a row says when it fails."""

from __future__ import annotations

import functools
import random
import re

import pytest
import torch

import tiny
import tv_lens as tv
from tv_lens.batch import TokenBatch
from tv_lens.errors import BudgetTooSmall, NonFiniteMetric
from tv_lens.metrics import Answers, Readout
from tv_lens.rows import sharding
from tv_lens.rows.engine import PlacedEdit, Row, run_rows, why_whole_passes
from tv_lens.rows.sharding import added, cut_rows, run_sharded
from tv_lens.site import Site

LENGTHS = (9, 5, 9, 7)


def batch() -> TokenBatch:
    drawn = torch.randint(3, tiny.VOCAB, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    return TokenBatch.from_lists([row[:length].tolist() for row, length in zip(drawn, LENGTHS)])


def zeroing(layers=3) -> list[Row]:
    return [
        Row(i, (PlacedEdit(tv.Zero(Site("mlp_out", layer)), (at,)),))
        for layer in range(layers)
        for i, length in enumerate(LENGTHS)
        for at in (length - 1, 2)
    ]


def two_logits(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return logits[:, 5] - logits[:, 7]


# ---------------------------------------------------------------------------------------------------------- the cut


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


# --------------------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_shards_of_rows_are_the_rows(family, tiny_model, monkeypatch, tmp_path):
    model, rows = tiny_model(family), zeroing()
    seen = torch.zeros(len(rows))

    def readout(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen[index] = logits.max(dim=1).values
        return two_logits(logits, index)

    plain, largest = run_rows(model, model.tokens(batch()), rows, readout).values, seen.clone()
    asked = dict(verb="zeroing", config={}, who="test", beside={"seen": seen})
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 60)
    without = run_sharded(model, model.tokens(batch()), rows, readout, folder=None, **asked)
    torch.testing.assert_close(without.values, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen, largest, atol=1e-5, rtol=0)
    bits = without.values.numpy().tobytes(), seen.numpy().tobytes()
    for _ in range(2):  # computed, then read
        seen.zero_()
        kept = run_sharded(model, model.tokens(batch()), rows, readout, folder=tmp_path, **asked)
        assert (kept.values.numpy().tobytes(), seen.numpy().tobytes()) == bits
        assert kept.provenance["rows"] == len(rows) and kept.provenance["folder"] == str(tmp_path)
    assert tv.RunFolder(tmp_path).total > 2


def test_a_readout_of_answers_stays_narrow_in_shards(tiny_model, monkeypatch):
    model, rows = tiny_model("llama"), zeroing()
    owners = torch.tensor([row.prompt for row in rows])
    readout = Readout(tv.logit_diff, Answers(torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11, 12])), owners)
    whole = run_rows(model, model.tokens(batch()), rows, readout).values
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 60)
    found = run_sharded(model, model.tokens(batch()), rows, readout, folder=None, verb="x", config={}, who="test")
    torch.testing.assert_close(found.values, whole, atol=1e-5, rtol=0)


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


def test_the_plan_is_known_before_anything_runs(tiny_model):
    model = tiny_model("llama")
    assert why_whole_passes(model, [Site("z", 1)]) is None
    assert why_whole_passes(model, [Site("z", 1)], "passes") == "asked for"
    assert "pattern" in why_whole_passes(model, [Site("z", 1), Site("pattern", 1)])
    with pytest.raises(tv.TVLensError, match="did you mean 'rows'"):
        why_whole_passes(model, [Site("z", 1)], "row")


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_a_value_that_is_no_number_names_its_row(engine, tiny_model):
    model, rows = tiny_model("llama"), zeroing()
    owners = torch.tensor([row.prompt for row in rows])

    def failing(logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        return torch.where(answers.correct == 7, torch.nan, logits[:, 0])

    readout = Readout(failing, Answers(torch.tensor([5, 6, 7, 8])), owners)
    with pytest.raises(NonFiniteMetric) as caught:
        run_rows(model, model.tokens(batch()), rows, readout, engine=engine)
    number, prompt, layer, at = re.match(
        r"row (\d+) \(nan\): prompt (\d), Zero\(mlp_out\[(\d)\]\) at position (\d)", caught.value.got
    ).groups()
    row = rows[int(number)]
    assert int(prompt) == row.prompt == 2
    assert (int(layer), int(at)) == (row.edits[0].intervention.site.layer, row.edits[0].positions[0])
    assert caught.value.what.startswith("Metric failing is not finite for ") and "finite: the metric" in caught.value.do


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_so_does_one_of_a_readout_of_ones_own(engine, tiny_model):
    model = tiny_model("llama")
    rows = [
        Row(0),
        Row(1, (PlacedEdit(tv.Zero(Site("z", 1, 2)), (1, 2, 3)), PlacedEdit(tv.Zero(Site("mlp_out", 2)), (0, 4)))),
    ]
    with pytest.raises(
        NonFiniteMetric,
        match=re.escape(
            "row 1 (inf): prompt 1, Zero(z[1].h2) at positions 1 to 3 and Zero(mlp_out[2]) at positions 0, 4"
        ),
    ):
        run_rows(model, model.tokens(batch()), rows, lambda logits, index: index / (1.0 - index), engine=engine)
    with pytest.raises(NonFiniteMetric, match=re.escape("row 0 (nan): prompt 0, no edit")):
        run_rows(model, model.tokens(batch()), rows, lambda logits, index: logits[:, 0] * torch.nan, engine=engine)


def test_weights_that_overflow_name_the_row(tiny_model):
    """The value is lost in the model, not in the metric."""
    model = tiny_model("llama")
    vector = torch.full((tiny.D_MODEL,), 3e38)
    rows = [Row(0), Row(1, (PlacedEdit(tv.Add(Site("resid_pre", 1), vector, 10.0), (2,)),))]
    for engine in ("rows", "passes"):
        with pytest.raises(NonFiniteMetric, match=r"row 1 \(nan\): prompt 1, Add\(resid_pre\[1\].*\) at position 2"):
            run_rows(model, model.tokens(batch()), rows, two_logits, engine=engine)


@pytest.mark.parametrize("engine", ["rows", "passes"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_budget_too_small_says_the_smallest_that_works(family, engine, tiny_model):
    model = tiny_model(family)
    shorter = [row for row in zeroing() if row.prompt in (1, 3)]
    last = [row for row in zeroing() if row.edits[0].positions[0] != 2]
    for rows in (zeroing(), last) if family == "llama" else (shorter,):
        run = functools.partial(run_rows, model, model.tokens(batch()), rows, two_logits, engine=engine)
        with pytest.raises(BudgetTooSmall) as caught:
            run(memory_budget=10)
        least = int(re.search(r"at least ([\d,]+) bytes", caught.value.allowed).group(1).replace(",", ""))
        for budget in (least, 2 * least):
            torch.testing.assert_close(run(memory_budget=budget).values, run().values, atol=1e-5, rtol=0)
        with pytest.raises(BudgetTooSmall):
            run(memory_budget=least - 1)
