"""What a model writes, against Hugging Face's own greedy decoding and against plain loops over whole texts."""

from __future__ import annotations

import json
from functools import cache, partial

import pytest
import torch
import transformers as hf

import tiny
import tv_lens as tv
from hooked_cases import ROWS, Made, overflowing
from tiny_regressors import CONFIG, FAMILY
from tiny_tokenizers import of_kind
from tv_lens.errors import (
    BudgetTooSmall,
    DuplicateSite,
    InvalidArgument,
    NonFiniteActivation,
    PositionError,
    PromptError,
    TVLensError,
)
from tv_lens.intervention import Add, Mean, Project, Replace, Resample, Zero
from tv_lens.lab import Regressor, build_network
from tv_lens.model import generation

NEW = 6
BATCH = tv.tasks.TokenBatch.from_lists(ROWS)
ONES = torch.linspace(-2, 2, tiny.D_MODEL)


@cache
def plain(family: str) -> hf.PreTrainedModel:
    return tiny.hugging_face_model(family)


def greedy(family: str, row: list[int], n: int = NEW, **options) -> list[int]:
    """Hugging Face's own greedy decoding of one prompt alone."""
    ids = torch.tensor([row])
    out = plain(family).generate(
        ids, max_new_tokens=n, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0, **options
    )
    return out[0, len(row) :].tolist()


def by_hand(model, row: list[int], edits_at, n: int = NEW) -> list[int]:
    """Greedy decoding that reads the whole text at every step; `edits_at` places the edits, given the new tokens."""
    ids = list(row)
    for step in range(n):
        ids.append(int(model.run(torch.tensor([ids]), edits_at(len(row), step)).argmax()))
        if ids[-1] == 2:
            break
    return ids[len(row) :]


def test_without_edits_it_writes_what_hugging_face_writes_for_each_prompt_alone(model, family):
    expected = [greedy(family, row) for row in ROWS]
    for use_cache in (True, False):
        found = model.generate(BATCH, max_new_tokens=NEW, use_cache=use_cache)
        assert found.ids == expected and found.provenance["cache"] is use_cache
    left = tv.tasks.TokenBatch.from_lists(ROWS, side="left")
    assert model.generate(left, max_new_tokens=NEW).ids == expected
    assert [model.generate(row, max_new_tokens=NEW).ids[0] for row in ROWS[:2]] == expected[:2]


def test_a_text_goes_on_after_its_end_where_it_may(llama):
    found = llama.generate(BATCH, max_new_tokens=NEW, stop_at_eos=False)
    free = greedy("llama", ROWS[0], eos_token_id=None)
    assert all(len(row) == NEW for row in found.ids) and found.ids[0] == free


def test_a_text_ends_at_any_of_the_tokens_that_the_models_own_config_names():
    ends = [15, 2, greedy("llama", ROWS[0])[0]]
    own, model = tiny.hugging_face_model("llama"), tv.load(tiny.hugging_face_model("llama"))
    own.generation_config.eos_token_id = model.tl.original_model.generation_config.eos_token_id = ends
    found = model.generate(ROWS[:2], max_new_tokens=NEW)
    for row, ids in zip(ROWS, found.ids):
        out = own.generate(torch.tensor([row]), max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        assert ids == out[0, len(row) :].tolist()
    assert found.ids[0] == ends[2:] and found.provenance["eos"] == ends


EDITS = {
    "at the first token": lambda: Replace("resid_post[1]@0", 4 * ONES),
    "at the last token": lambda: Add("resid_post[1]@-1", 3 * ONES),
    "at two tokens": lambda: Zero("resid_post[0]@0,-1"),
    "a head": lambda: Zero("z[1].h2@-1"),
    "at all tokens": lambda: Add("resid_pre[2]", 2 * ONES),
    "a direction": lambda: Project("mlp_out[1]", ONES),
    "a mean": lambda: Mean("attn_out[1]", value=ONES),
    "stacked": lambda: Zero("attn_out[1]@-1").then(Add("attn_out[1]@-1", ONES)),
    "two": lambda: (Zero("mlp_out[0]@0"), Add("resid_post[1]@-1", ONES)),
}
SAYS_WHY = {
    "even attention": (lambda: Zero("scores[1]"), "grows with the text"),
    "a function of all tokens": (
        lambda: Made("resid_post[1]", lambda x: x - x.mean(1, keepdim=True)),
        "may look at all tokens",
    ),
}


def placed(edits, every_step: bool, length: int, step: int):
    """The edits with their positions counted from the front, and those at -1 at every new token as well."""
    found = []
    for edit in edits if isinstance(edits, tuple) else (edits,):
        where = [p if p >= 0 else p + length for p in edit.site.positions]
        where = list(dict.fromkeys(where))  # of one token the first is the last
        if every_step and edit.site.pos == -1:
            where += range(length, length + step)
        for pos in where:
            part = edit if not hasattr(edit, "parts") else edit.parts
            moved = [type(p)(p.site.at(pos), **_rest(p)) for p in (part if isinstance(part, tuple) else (part,))]
            found.append(moved[0] if len(moved) == 1 else moved[0].then(moved[1]))
        if not where:
            found.append(edit)
    return found


def _rest(edit):
    return {name: value for name, value in vars(edit).items() if name != "site"}


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("name", EDITS)
def test_edits_stay_where_they_are_with_and_without_a_cache(name, every_step, tiny_model):
    n, rows = 4, ROWS[:3]
    for family in ("llama", "gemma2"):
        model, edits = tiny_model(family), EDITS[name]()
        if every_step and name in ("at the first token", "at two tokens"):
            with pytest.raises(InvalidArgument, match="every_step=True"):
                model.generate(rows, edits, every_step=True)
            continue
        options = {"max_new_tokens": n, "every_step": every_step}
        cached, whole = (model.generate(rows, edits, use_cache=use, **options) for use in (True, False))
        at = partial(placed, edits, every_step)
        expected = [by_hand(model, row, at, n) for row in rows]
        assert cached.provenance["cache"] and not whole.provenance["cache"]
        assert cached.ids == expected and whole.ids == expected


@pytest.mark.parametrize("name", SAYS_WHY)
def test_edits_of_whole_texts_read_whole_texts(name, llama):
    make, why = SAYS_WHY[name]
    found = llama.generate(BATCH, make(), max_new_tokens=NEW)
    assert why in found.provenance["cache_why_not"]
    assert found.ids == [by_hand(llama, row, lambda length, step: make()) for row in ROWS]


def test_steering_differs_from_one_shot_injection_and_both_from_nothing(llama):
    edit = Add("resid_post[1]@-1", 3 * ONES)
    ids = {
        name: llama.generate(BATCH, edits, max_new_tokens=NEW, every_step=every, stop_at_eos=False).ids
        for name, edits, every in (("nothing", (), True), ("once", edit, False), ("every step", edit, True))
    }
    assert ids["nothing"] != ids["once"] != ids["every step"] != ids["nothing"]
    assert [row[0] for row in ids["once"]] == [row[0] for row in ids["every step"]]  # the first token is the same


def test_a_value_for_each_prompt_and_values_of_other_prompts_stay_with_their_prompts(llama):
    values = torch.stack([ONES, -ONES, 2 * ONES, ONES.flip(0)])
    found = llama.generate(BATCH, Replace("resid_post[1]@-1", values), max_new_tokens=NEW, every_step=True)
    assert "needs all prompts" in found.provenance["cache_why_not"]
    for row, value, ids in zip(ROWS, values, found.ids):
        alone = llama.generate(row, Replace("resid_post[1]@-1", value), max_new_tokens=NEW, every_step=True)
        assert alone.ids == [ids]
    once = llama.generate(BATCH, Resample("resid_post[1]@-1"), max_new_tokens=1).ids
    assert once == [[int(i)] for i in llama.run(BATCH, Resample("resid_post[1]@-1")).argmax(-1)]
    with pytest.raises(BudgetTooSmall, match="needs all prompts in one batch"):
        llama.generate(BATCH, Resample("resid_post[1]@-1"), memory_budget=120_000)


def test_a_small_budget_splits_and_changes_nothing(llama):
    many = ROWS * 3
    whole = llama.generate(many, Zero("z[1]@-1"), max_new_tokens=4, every_step=True)
    for use_cache in (True, False):
        split = llama.generate(
            many, Zero("z[1]@-1"), max_new_tokens=4, every_step=True, use_cache=use_cache, memory_budget=60_000
        )
        assert split.ids == whole.ids
    with pytest.raises(BudgetTooSmall, match="does not hold one prompt"):
        llama.generate(many, memory_budget=1000)


# ---- contexts around it ----------------------------------------------------------------------------------------------


def test_an_open_intervene_acts_on_the_positions_that_it_names(llama):
    first, everywhere = Replace("resid_post[1]@0", 4 * ONES), Add("resid_pre[2]", 2 * ONES)
    expected = llama.generate(BATCH, (first, everywhere), max_new_tokens=NEW)
    with llama.intervene(first, everywhere):
        found = llama.generate(BATCH, max_new_tokens=NEW)
    assert found.ids == expected.ids and "model.intervene is open" in found.provenance["cache_why_not"]
    with llama.intervene(everywhere):
        found = llama.generate(BATCH, first, max_new_tokens=NEW)
    assert found.ids == expected.ids and found.provenance["cache"]
    last = Zero("resid_post[1]@-1")
    with llama.intervene(last):
        with pytest.raises(InvalidArgument, match=r"back from the last token.*\n.*\n.*every_step=True repeats it"):
            llama.generate(BATCH)
        assert llama.generate(BATCH, max_new_tokens=1).ids == [[int(i)] for i in llama.run(BATCH).argmax(-1)]


def test_the_model_is_left_as_it_was(llama):
    before, clean = llama.facts.mark, llama.run(BATCH)
    llama.generate(BATCH, Zero("z[1]@-1"), max_new_tokens=3, every_step=True)
    with pytest.raises(PositionError):
        llama.generate(BATCH, Zero("z[1]@3"))
    assert llama.facts.mark == before and torch.equal(llama.run(BATCH), clean)


def test_hooks_by_hand_see_whole_texts():
    model, widths = tv.load(tiny.hugging_face_model("llama")), []
    handle = model.tl.original_model.model.layers[1].register_forward_pre_hook(lambda m, args: widths.append(1))
    try:
        assert model.generate(ROWS[0], max_new_tokens=3).provenance["cache_why_not"] == (
            "hooks were added to the model by hand"
        )
    finally:
        handle.remove()


@pytest.mark.parametrize("family", ["longrope_phi3", "longrope_llama"])
def test_tables_that_depend_on_the_length_are_those_of_the_whole_text(family):
    """A text that grows past the switch is rotated as the long text that it is, which a cache is not."""
    model = tv.load(tiny.hugging_face_model(family))
    found = model.generate(ROWS[:2], max_new_tokens=20, stop_at_eos=False)
    expected = []
    for row in ROWS[:2]:
        ids = list(row)
        for _ in range(20):
            ids.append(int(model.run(ids).argmax()))
        expected.append(ids[len(row) :])
    assert found.ids == expected and "depend on the length" in found.provenance["cache_why_not"]


def test_a_model_that_cannot_continue_from_a_cache_reads_whole_texts(monkeypatch):
    class Forgetful(hf.DynamicCache):
        def update(self, keys, values, *rest, **named):
            super().update(keys, values, *rest, **named)
            return keys, values

    model = tv.load(tiny.hugging_face_model("llama"))
    monkeypatch.setattr(generation, "DynamicCache", Forgetful)
    found = model.generate(ROWS, max_new_tokens=NEW)
    assert "cache" in found.provenance["cache_why_not"]
    assert found.ids == [greedy("llama", row) for row in ROWS]


# ---- texts, and what is recorded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "bos", "prefix", "eos"])
def test_a_text_is_steered_in_one_call(kind):
    tokenizer, texts = of_kind(kind), ["Q: go\nA:", "Q: see"]
    original = tiny.hugging_face_model("llama", vocab_size=400)
    model = tv.load(tiny.hugging_face_model("llama", vocab_size=400), tokenizer=tokenizer, name="tiny")
    found = model.generate(texts, max_new_tokens=5)
    assert len(found) == 2 and found.prompts.rows() == model.tokens(texts).rows()
    for row, ids, text in zip(found.prompts.rows(), found.ids, found.texts):
        out = original.generate(torch.tensor([row]), max_new_tokens=5, do_sample=False, pad_token_id=0)[0, len(row) :]
        assert ids == out.tolist() and text == tokenizer.decode(out, skip_special_tokens=True)
    edit = Add("resid_post[1]@-1", 5 * ONES)
    assert model.generate(texts[0], edit, max_new_tokens=5).texts != found.texts[:1]


def test_how_it_was_decoded_is_recorded(llama):
    about = llama.generate(ROWS, Zero("z[1]@-1"), max_new_tokens=3, every_step=True).provenance
    assert json.loads(json.dumps(about)) == {
        "decoding": "greedy",
        "max_new_tokens": 3,
        "every_step": True,
        "eos": [2],
        "edits": ["Zero(z[1]@-1)"],
        "cache": True,
        "cache_why_not": None,
        "model": llama.full_name,
        "fingerprint": llama.fingerprint,
    }
    shown = repr(llama.generate(ROWS, max_new_tokens=3, use_cache=False))
    assert shown == "Generation(4 prompts, greedy, no edits)"
    with pytest.raises(PromptError, match="only be read as text with a tokenizer"):
        _ = llama.generate(ROWS, max_new_tokens=1).texts


def test_draws_follow_the_seed_and_the_temperature(llama):
    def drawn(**options):
        return llama.generate(ROWS, max_new_tokens=NEW, stop_at_eos=False, **options)

    first = drawn(temperature=1.0, seed=3)
    assert drawn(temperature=1.0, seed=3).ids == first.ids != drawn(temperature=1.0, seed=4).ids
    assert drawn(temperature=1.0, seed=3, use_cache=False).ids == first.ids
    assert drawn(temperature=1e-4).ids == drawn().ids  # nearly no chance is left
    assert first.provenance["decoding"] == "sampling" and first.provenance["temperature"] == 1.0
    same = llama.generate([ROWS[3]] * 400, max_new_tokens=1, temperature=1.0, seed=0).ids
    counts = torch.bincount(torch.tensor(same).flatten(), minlength=tiny.VOCAB) / 400
    chances = llama.run([ROWS[3]])[0].softmax(-1)
    assert float((counts - chances).abs().max()) < 0.1  # four standard errors of a share of one half


REFUSED = {
    "no token": (lambda m: m.generate(ROWS, max_new_tokens=0), InvalidArgument, "max_new_tokens=0"),
    "a negative temperature": (lambda m: m.generate(ROWS, temperature=-1.0), InvalidArgument, "temperature=-1.0"),
    "no text": (lambda m: m.generate([]), TVLensError, "at least one row"),
    "too long": (lambda m: m.generate(ROWS, max_new_tokens=60), PromptError, "6 tokens and max_new_tokens=60"),
    "nothing to repeat": (
        lambda m: m.generate(ROWS, Zero("z[1]@0"), every_step=True),
        InvalidArgument,
        "repeats edits at pos=-1, and there is none",
    ),
    "one site twice": (lambda m: m.generate(ROWS[0], (Zero("z[1]@5"), Zero("z[1]@-1"))), DuplicateSite, "same site"),
    "infinity": (
        lambda m: m.generate(ROWS, Add("resid_post[1]@-1", torch.full((tiny.D_MODEL,), float("inf")))),
        TVLensError,
        "infinite",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused(name, llama):
    call, error, said = REFUSED[name]
    with pytest.raises(error, match=said):
        call(llama)


def test_the_last_token_of_the_context_can_be_written(llama):
    found = llama.generate(ROWS[0], max_new_tokens=59, stop_at_eos=False)  # 6 are read, and the last one is not
    assert found.ids == [greedy("llama", ROWS[0], 59, eos_token_id=None)]


def test_logits_that_are_no_numbers_are_refused(half):
    with pytest.raises(NonFiniteActivation):
        half.generate(ROWS[0], overflowing(), max_new_tokens=2)


def test_a_model_of_numbers_writes_no_text():
    regressor = Regressor(build_network(CONFIG, seed=1), CONFIG, family=FAMILY)
    with pytest.raises(InvalidArgument, match="predicts a number and not the next token"):
        regressor.generate(regressor.encode(FAMILY.sample(2, 0)))
