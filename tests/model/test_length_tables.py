"""Rotary tables that depend on the length: a padded prompt computes what it computes alone, whatever ran before."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from row_cases import two_logits
from tv_lens.intervention import Zero
from tv_lens.model.length_tables import length_arguments, length_class, length_switches
from tv_lens.rows import packing
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import Site

IDS = torch.randint(3, tiny.VOCAB, (24,), generator=torch.Generator().manual_seed(3)).tolist()
LENGTHS = (5, tiny.SWITCH, 24, tiny.SWITCH + 1, 20)
PADDED = tv.tasks.TokenBatch.from_lists([IDS[:n] for n in LENGTHS])
LONGROPE = [name for name in tiny.LENGTH_DEPENDENT if name.startswith("longrope")]


def own_logits(family: str, length: int) -> torch.Tensor:
    """The logits after a prompt of the model as transformers runs it, alone and before anything else."""
    with torch.no_grad():
        return tiny.hugging_face_model(family)(torch.tensor([IDS[:length]])).logits[0, -1]


def last_logits(model: tv.HookedModel, batch: tv.tasks.TokenBatch) -> torch.Tensor:
    return model.forward(batch, logits_at=batch.last[:, None])[0][:, 0]


@pytest.fixture(scope="module", params=list(tiny.LENGTH_DEPENDENT))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def dependent(name) -> tv.HookedModel:
    return tv.load(tiny.hugging_face_model(name), name=name)


def test_a_padded_prompt_computes_what_it_computes_alone(dependent, name):
    """Against transformers' own run of each prompt; transformers' padded batch, for one, gives other numbers."""
    wanted = torch.stack([own_logits(name, n) for n in LENGTHS])
    torch.testing.assert_close(last_logits(dependent, PADDED), wanted, atol=2e-5, rtol=0)
    with torch.no_grad():
        of_transformers = tiny.hugging_face_model(name)(PADDED.ids, attention_mask=PADDED.mask.long()).logits
    assert float((of_transformers[0, LENGTHS[0] - 1] - wanted[0]).abs().max()) > 0.01


def test_what_ran_before_makes_no_difference(dependent, name):
    """Dynamic scaling keeps the table of the longest prompt for those that follow, down to the switch."""
    for length in (24, 20, tiny.SWITCH, 5, 24):
        batch = tv.tasks.TokenBatch.from_lists([IDS[:length]])
        torch.testing.assert_close(last_logits(dependent, batch)[0], own_logits(name, length), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", LONGROPE)
def test_captures_gradients_and_edits_too(name):
    model = tv.load(tiny.hugging_face_model(name))
    sites, edit = [Site("k", 1), Site("resid_post", 2)], Zero("z[0].h1@-1")
    together = model.capture(PADDED, sites, pos=-1)
    _, slopes, _ = model.gradients(PADDED, [Site("resid_pre", 0)], lambda logits: logits[:, 7])
    edited = model.run(PADDED, edit)
    for i, length in enumerate(LENGTHS):
        prompt = torch.tensor([IDS[:length]])
        alone = model.capture(prompt, sites, pos=-1)
        for site in sites:
            torch.testing.assert_close(together[site][i], alone[site][0], atol=2e-5, rtol=0)
        _, slope, _ = model.gradients(model.tokens(prompt), [Site("resid_pre", 0)], lambda logits: logits[:, 7])
        here = slopes[Site("resid_pre", 0)][i, :length]
        torch.testing.assert_close(here, slope[Site("resid_pre", 0)][0], atol=2e-5, rtol=0)
        torch.testing.assert_close(edited[i : i + 1], model.run(prompt, edit), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", LONGROPE)
def test_rows_equal_whole_passes_on_both_sides_of_the_switch(name):
    """Prompts that share a beginning as long as the switch: it is not run as a prompt of its own length."""
    model = tv.load(tiny.hugging_face_model(name))
    prompts = [[*IDS[:16], 50 + i, 60, 70 + i, 4] for i in range(3)] + [IDS[:9], [*IDS[:8], 11]]
    base = tv.tasks.TokenBatch.from_lists(prompts)
    rows = [
        Row(i, (PlacedEdit(Zero(Site("attn_out", layer)), (place,)),))
        for i, prompt in enumerate(prompts)
        for layer in range(3)
        for place in (len(prompt) - 1, len(prompt) - 3)
    ]
    found = run_rows(model, base, rows, two_logits, engine="rows")
    assert found.provenance["tokens_shared"] == 0
    for i, row in enumerate(rows):
        alone = run_rows(model, base.select([row.prompt]), [Row(0, row.edits)], two_logits, engine="passes")
        torch.testing.assert_close(found.values[i], alone.values[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", LONGROPE)
def test_rows_of_two_classes_are_not_packed_into_one_sequence(name):
    model = tv.load(tiny.hugging_face_model(name))
    rows = [tuple(IDS[:20]), tuple(IDS[:14]), tuple(IDS[:18])]
    (pack,), _ = packing.packed(rows, model.shape)
    assert not packing.fits(model, pack, 1)
    (short,), _ = packing.packed([row[:12] for row in rows[:1]] + [row[:9] for row in rows[1:2]], model.shape)
    assert packing.fits(model, short, 1)


def test_the_switch_and_the_classes(dependent, name):
    assert length_switches(dependent.tl) == [tiny.SWITCH]
    below, at, above, further = (length_class(dependent.tl, n) for n in (3, tiny.SWITCH, tiny.SWITCH + 1, 24))
    assert below == at != above and (above == further) is (name in LONGROPE)


def test_a_model_without_such_tables_is_left_as_it_is(tiny_model):
    model = tiny_model("llama")
    assert length_switches(model.tl) == [] and length_class(model.tl, 5) == length_class(model.tl, 60)
    assert length_arguments(model.tl, PADDED, {}) == {}


def test_rows_of_one_class_are_given_nothing(dependent):
    short = tv.tasks.TokenBatch.from_lists([IDS[:5], IDS[:9]])
    assert length_arguments(dependent.tl, short, {}) == {}
    mixed = length_arguments(dependent.tl, PADDED, {})
    assert mixed["position_ids"].amax(dim=1).tolist() == [n - 1 for n in LENGTHS]
    assert length_arguments(dependent.tl, PADDED, {"position_ids": mixed["position_ids"]}) == {}


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.WHOLE_PASSES_ONLY, *LONGROPE])
def test_every_family_pads_without_a_trace(family):
    """Every position of every layer, and the logits: in a batch padded far, and alone."""
    model = tv.load(tiny.hugging_face_model(family))
    batch = tv.tasks.TokenBatch.from_lists([IDS, IDS[:4], IDS[2:11]])
    logits, stream = model.run(batch, logits="all"), model.residual_stream(batch)
    for i, row in enumerate(batch.rows()):
        alone = torch.tensor([row])
        own, own_stream = model.run(alone, logits="all")[0], model.residual_stream(alone)[:, 0]
        torch.testing.assert_close(logits[i, : len(row)], own, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(stream[:, i, : len(row)], own_stream, atol=1e-4, rtol=1e-4)
