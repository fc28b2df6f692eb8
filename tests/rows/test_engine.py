"""`run_rows`: the engine "rows" equals whole passes, on every family, component, layout, padding and dtype."""

from __future__ import annotations

import functools
import re

import pytest
import torch

import tiny
import tv_lens as tv
from row_cases import WIDTH, batch, both, ids, replacing_rows, two_logits, zeroing
from tv_lens.batch import TokenBatch
from tv_lens.errors import BudgetTooSmall
from tv_lens.intervention import Add, Mean, Replace, Resample, Zero
from tv_lens.metrics import Answers, Readout, log_prob, logit_diff
from tv_lens.rows.engine import PlacedEdit, Row, run_rows, why_whole_passes
from tv_lens.site import Site


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_rows_equal_whole_passes_at_every_site(family, dtype):
    """One last token, one earlier token, the first, a span, and two at the end; from every layer and component."""
    model = tv.load(tiny.hugging_face_model(family).to(dtype), name=family)
    places = ((WIDTH - 1,), (4,), (0,), (5, 6, 7), (WIDTH - 2, WIDTH - 1))
    rows = replacing_rows(model, ids(1), ids(2), places)
    with_rows, with_hooks = both(model, model.tokens(ids(1)), rows)
    effect = (
        (with_hooks - run_rows(model, model.tokens(ids(1)), [Row(0)], two_logits, engine="passes").values).abs().max()
    )
    assert effect > 0.5
    # float32 rounds at 1e-7 of values near 5 over a few hundred additions; bfloat16 keeps eight bits of them.
    tolerance = 1e-5 if dtype == torch.float32 else 0.25
    assert (with_rows - with_hooks).abs().max() < tolerance


def test_rows_equal_whole_passes_head_by_head(family, tiny_model):
    model = tiny_model(family)
    held = model.capture(ids(2), tv.sites("z", pos=-1))
    rows = [
        Row(
            i,
            (PlacedEdit(Replace(Site("z", layer, head), held[Site("z", layer, pos=-1)][i, head][None]), (WIDTH - 1,)),),
        )
        for layer in range(3)
        for head in range(4)
        for i in range(3)
    ]
    with_rows, with_hooks = both(model, model.tokens(ids(1)), rows)
    torch.testing.assert_close(with_rows, with_hooks, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_rows_equal_whole_passes_under_padding(side, tiny_model):
    model = tiny_model("llama")
    lists = [row[:length].tolist() for row, length in zip(ids(1), (12, 9, 7) if side != "none" else (9, 9, 9))]
    batch = TokenBatch.from_lists(lists, side="right" if side == "none" else side)
    vector = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    rows = [
        Row(i, (PlacedEdit(Replace(Site("resid_post", layer), vector), (length - 1 - back,)),))
        for layer in range(3)
        for back in (0, 3)
        for i, length in enumerate(batch.lengths.tolist())
    ]
    with_rows, with_hooks = both(model, batch, rows)
    torch.testing.assert_close(with_rows, with_hooks, atol=1e-5, rtol=0)
    alone = [
        run_rows(model, model.tokens(torch.tensor([lists[row.prompt]])), [Row(0, row.edits)], two_logits).values
        for row in rows
    ]
    torch.testing.assert_close(with_rows, torch.cat(alone), atol=1e-5, rtol=0)


def test_several_edits_in_one_row_and_prompts_with_different_rows(tiny_model):
    model = tiny_model("gemma2")
    vector = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    last = WIDTH - 1
    rows = [
        Row(0),
        Row(0, (PlacedEdit(Zero(Site("z", 0, 1)), (last,)), PlacedEdit(Zero(Site("z", 2, 3)), (last,)))),
        Row(
            1,
            (PlacedEdit(Add(Site("resid_post", 0), vector, 2.0), (3,)), PlacedEdit(Zero(Site("mlp_out", 2)), (last,))),
        ),
        Row(2, (PlacedEdit(Replace(Site("resid_pre", 1), vector), (last,)),)),
        Row(2, (PlacedEdit(Add(Site("resid_post", 2), vector).then(Zero(Site("resid_post", 2))), (last,)),)),
        Row(
            1,
            (
                PlacedEdit(Add(Site("resid_pre", 1), vector), (last,)),
                PlacedEdit(Add(Site("resid_pre", 1), vector), (last,)),
            ),
        ),
    ]
    with_rows, with_hooks = both(model, model.tokens(ids(1)), rows)
    torch.testing.assert_close(with_rows, with_hooks, atol=1e-5, rtol=0)


def test_a_readout_of_answers_skips_the_vocabulary_and_changes_no_value(family, tiny_model):
    model, n = tiny_model(family), 3
    answers = Answers(torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10]))
    rows = [Row(i, (PlacedEdit(Zero(Site("attn_out", layer)), (WIDTH - 1,)),)) for layer in range(3) for i in range(n)]
    owners = torch.tensor([row.prompt for row in rows])
    narrow = both(model, model.tokens(ids(1)), rows, Readout(logit_diff, answers, owners))
    whole = both(
        model, model.tokens(ids(1)), rows, lambda logits, index: logit_diff(logits, answers.select(owners[index]))
    )
    for found in narrow + whole:
        torch.testing.assert_close(found, whole[1], atol=1e-5, rtol=0)
    assert Readout(log_prob, answers, owners).columns(torch.arange(2)) is None


def test_small_budgets_change_no_value(tiny_model):
    model = tiny_model("qwen2")
    rows = replacing_rows(model, ids(1), ids(2), ((WIDTH - 1,), (6,)))
    roomy = run_rows(model, model.tokens(ids(1)), rows, two_logits, engine="rows")
    tight = run_rows(model, model.tokens(ids(1)), rows, two_logits, engine="rows", memory_budget=200_000)
    assert tight.provenance["walks"] > roomy.provenance["walks"]
    torch.testing.assert_close(tight.values, roomy.values, atol=1e-5, rtol=0)


def test_no_edit_is_the_plain_run_exactly(tiny_model):
    model = tiny_model("gpt2")
    rows = [Row(0, (PlacedEdit(Add(Site("resid_pre", 1), torch.ones(tiny.D_MODEL), 0.0), (WIDTH - 1,)),)), Row(0)]
    with_rows, with_hooks = both(model, model.tokens(ids(1)), rows)
    assert with_hooks[0] == with_hooks[1]
    # The row with the edit is recomputed from layer 1 on, the other from layer 2 on: sums of other batch sizes.
    assert abs(with_rows[0] - with_rows[1]) < 1e-6


def test_what_rows_cannot_honour_runs_as_whole_passes_and_says_why(tiny_model):
    model = tiny_model("llama")
    row = Row(0, (PlacedEdit(Zero(Site("z", 1)), (3,)),))
    pattern = Row(0, (PlacedEdit(Zero(Site("pattern", 1)), (3,)),))
    base = model.tokens(ids(1))
    found = run_rows(model, base, [row, pattern], two_logits)
    assert found.provenance["engine_why"] == "edits of pattern need the whole pass"
    with model.intervene(Zero(Site("mlp_out", 0))):
        assert (
            run_rows(model, base, [row], two_logits).provenance["engine_why"]
            == "model.intervene is attached to the model"
        )
    with model.tl.hooks(fwd_hooks=[("blocks.0.hook_in", lambda x, hook: x)]):
        assert "added to the model by hand" in run_rows(model, base, [row], two_logits).provenance["engine_why"]
        with pytest.raises(tv.errors.TVLensError, match="Rows do not apply here"):
            run_rows(model, base, [row], two_logits, engine="rows")


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rows_under_a_device_map(family, where, tiny_model, tmp_path):
    """accelerate's hooks bring the middle layer's weights for its own forward; rows step that same forward."""
    accelerate = pytest.importorskip("accelerate")
    source = tiny.hugging_face_model(family)
    blocks = {"llama": "model.layers", "gpt2": "transformer.h"}[family]
    others = {name for name, module in source.named_modules() if name and not any(module.children())}
    places = {name: "cpu" for name in others if not name.startswith(blocks + ".")}
    places |= {f"{blocks}.{layer}": where if layer == 1 else "cpu" for layer in range(tiny.LAYERS)}
    spread = accelerate.dispatch_model(source, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    model, whole = tv.load(spread, name=family), tiny_model(family)
    assert model.device == torch.device("cpu")
    rows = [
        Row(i, (PlacedEdit(Zero(Site(name, layer)), place),))
        for layer in range(3)
        for i in range(3)
        for name in ("z", "mlp_out")
        for place in ((WIDTH - 1,), (4,))
    ]
    with_rows, with_hooks = both(model, model.tokens(ids(1)), rows)
    expected = run_rows(whole, whole.tokens(ids(1)), rows, two_logits, engine="passes").values
    torch.testing.assert_close(with_rows, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(with_hooks, expected, atol=1e-5, rtol=0)


def test_errors_say_what_to_do(tiny_model):
    model, base = tiny_model("gpt2"), TokenBatch.from_lists([[5, 6, 7]])
    site = Site("resid_pre", 1)
    cases = {
        "Row 0 edits a position that its prompt does not have.": Row(0, (PlacedEdit(Zero(site), (3,)),)),
        "Row 0 names a prompt that is not there.": Row(1),
        "Mean(resid_pre[1]) mixes the prompts of a batch, and a row has one prompt.": Row(
            0, (PlacedEdit(Mean(site), (0,)),)
        ),
        "Resample(resid_pre[1]) mixes the prompts": Row(0, (PlacedEdit(Resample(site), (0,)),)),
    }
    for message, row in cases.items():
        with pytest.raises(tv.errors.TVLensError) as caught:
            run_rows(model, base, [row], two_logits)
        assert str(caught.value).startswith(message)
    with pytest.raises(tv.errors.TVLensError, match="did you mean 'rows'"):
        run_rows(model, base, [Row(0)], two_logits, engine="row")
    with pytest.raises(tv.errors.TVLensError, match="There is no row to run"):
        run_rows(model, base, [], two_logits)
    for engine in ("rows", "passes"):
        with pytest.raises(tv.errors.TVLensError, match="at least [0-9,]+ bytes"):
            run_rows(model, base, [Row(0)], two_logits, engine=engine, memory_budget=1000)


@pytest.mark.slow
def test_rows_equal_whole_passes_on_the_real_model(smollm2):
    held = smollm2.capture("The capital of France is", tv.sites("z", pos=-1))
    base = smollm2.tokens("The capital of Italy is")
    last = base.width - 1
    rows = [
        Row(0, (PlacedEdit(Replace(Site("z", layer, head), held[Site("z", layer, pos=-1)][0, head][None]), (last,)),))
        for layer in range(0, 30, 7)
        for head in range(9)
    ]
    with_rows, with_hooks = both(smollm2, base, rows)
    torch.testing.assert_close(with_rows, with_hooks, atol=2e-4, rtol=0)  # logits near 20 after thirty layers


def test_the_engine_is_known_before_anything_runs(tiny_model):
    model = tiny_model("llama")
    assert why_whole_passes(model, [Site("z", 1)]) is None
    assert why_whole_passes(model, [Site("z", 1)], "passes") == "asked for"
    assert "pattern" in why_whole_passes(model, [Site("z", 1), Site("pattern", 1)])
    with pytest.raises(tv.errors.TVLensError, match="did you mean 'rows'"):
        why_whole_passes(model, [Site("z", 1)], "row")


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
