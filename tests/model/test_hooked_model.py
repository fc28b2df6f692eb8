"""HookedModel: texts and token ids, runs, contexts, and how it prints."""

from __future__ import annotations

import inspect

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import ROWS, TOKENS, close, words
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, PromptError
from tv_lens.intervention import Add, Project, Replace, Zero
from tv_lens.site import COMPONENTS, Site, sites

# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_a_text_and_several_become_right_padded_tokens(speaking):
    one = speaking.tokens("w5 w6 w7")
    assert one.ids.tolist() == [[5, 6, 7]] and one.mask.all()
    several = speaking.tokens(["w5 w6 w7", "w8"])
    assert several.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert several.mask.tolist() == [[True, True, True], [True, False, False]]


def test_token_ids_are_taken_as_they_are(llama):
    assert llama.tokens(torch.tensor([5, 6, 7])).ids.tolist() == [[5, 6, 7]]
    batch = llama.tokens(TOKENS)
    assert torch.equal(batch.ids, TOKENS) and not batch.is_padded
    assert llama.tokens(batch).ids.data_ptr() == batch.ids.data_ptr()


def test_left_padding_is_turned_into_right_padding(llama):
    left = tv.tasks.TokenBatch.from_lists(ROWS, side="left")
    right = llama.tokens(left)
    assert right.rows() == ROWS and right.first.tolist() == [0, 0, 0, 0]
    assert torch.equal(llama.run(left), llama.run(tv.tasks.TokenBatch.from_lists(ROWS)))


@pytest.mark.parametrize("bos", [False, True])
def test_BOS_is_what_the_models_own_tokenizer_does_and_not_transformer_lenss_default(bos):
    model = tv.load(tiny.hugging_face_model("llama"), tokenizer=words(bos))
    assert model.tl.cfg.default_prepend_bos is bos  # True for every tokenizer by default, which is not inherited
    assert model.prepends_bos is bos
    ids = model.tokens("w5 w6").ids
    assert ids.tolist() == [[1, 5, 6] if bos else [5, 6]]
    assert torch.equal(model.run("w5 w6"), model.run(ids))
    assert f"BOS {'' if bos else 'not '}prepended" in repr(model)


def test_a_model_without_a_tokenizer_says_so(llama):
    with pytest.raises(PromptError) as caught:
        llama.run("w5")
    assert str(caught.value) == (
        "This model has no tokenizer.\n  got:     llama\n  do:      pass token ids, or tv.load(model, tokenizer=...)."
    )


BAD_PROMPTS = {
    "an empty text": ("", PromptError, "A prompt has no tokens"),
    "an empty text among others": (["w5", ""], PromptError, "1 of 2 rows are empty: 1"),
    "no prompt": ([], EmptySelection, "at least one row"),
    "a text too long": ("w5 " * 65, PromptError, "got:     65 tokens\n  allowed: at most 64\n  do:      use fewer"),
    "an id too large": (torch.tensor([[5, 96]]), PromptError, "got:     5 to 96\n  allowed: 0 to 95"),
    "a negative id": (torch.tensor([[5, -1]]), PromptError, "got:     -1 to 5\n  allowed: 0 to 95"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_prompts_that_cannot_be_run_are_refused(speaking, name):
    prompts, error, said = BAD_PROMPTS[name]
    for call in (speaking.run, speaking.residual_stream, lambda p: speaking.capture(p, "z[0]")):
        with pytest.raises(error) as caught:
            call(prompts)
        assert said in str(caught.value)


# ---- run -------------------------------------------------------------------------------------------------------------


def test_the_last_logits_are_those_of_all_positions_at_the_last_real_token(model):
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    every, last = model.run(batch, logits="all"), model.run(batch)
    assert every.shape == (4, 6, tiny.VOCAB) and last.shape == (4, tiny.VOCAB) and last.dtype == torch.float32
    assert close(last, every[torch.arange(4), batch.last])
    assert not last.requires_grad


def test_run_refuses_another_choice_of_logits(llama):
    run = inspect.unwrap(tv.HookedModel.run)  # as users have it: here beartype would be quicker
    with pytest.raises(InvalidArgument, match="allowed: 'last', 'all'"):
        run(llama, TOKENS, logits="first")


def test_run_takes_one_intervention_or_several(llama):
    one = Zero("z[1]")
    assert torch.equal(llama.run(TOKENS, one), llama.run(TOKENS, [one]))
    assert torch.equal(llama.run(TOKENS, ()), llama.run(TOKENS))


EDITS = {
    "replace": lambda: Replace("resid_post[1]@-1", torch.ones(tiny.D_MODEL)),
    "add": lambda: Add("resid_pre[2]@-1", torch.ones(tiny.D_MODEL), scale=3.0),
    "zero a head": lambda: Zero("z[1].h2@-1"),
    "zero everywhere": lambda: Zero("mlp_out[0]"),
    "from the front": lambda: Zero("v[1].h1@0"),
    "project": lambda: Project("attn_out[1]", torch.ones(tiny.D_MODEL)),
    "even attention": lambda: Zero("scores[1]"),
}


def test_a_padded_prompt_runs_as_it_does_alone(model):
    batch, clean = tv.tasks.TokenBatch.from_lists(ROWS), model.run(TOKENS)
    for name, make in {"nothing": lambda: (), **EDITS}.items():
        if name == "even attention" and not model.registry.support(Site("scores", 1)).write:
            continue
        padded = model.run(batch, make())
        for i in (1, 2):
            alone = model.run(torch.tensor([ROWS[i]]), make())
            assert close(padded[i : i + 1], alone, clean), (name, ROWS[i])


def test_a_position_beyond_a_prompt_names_the_rows(llama):
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    for call in (
        lambda: llama.run(batch, Zero("z[1]@3")),
        lambda: llama.capture(batch, "z[1]@-4"),
        lambda: llama.capture(batch, "z[1]", pos=[0, 3]),
    ):
        with pytest.raises(PositionError, match="rows 1, 3 are shorter"):
            call()


# ---- the residual stream ---------------------------------------------------------------------------------------------


def test_the_residual_stream_is_resid_post_of_every_layer(model):
    stream = model.residual_stream(TOKENS)
    assert stream.shape == (tiny.LAYERS, 5, 7, tiny.D_MODEL) and stream.dtype == torch.float32
    found = model.capture(TOKENS, sites("resid_post"))
    assert all(torch.equal(stream[layer], found[Site("resid_post", layer)]) for layer in range(tiny.LAYERS))
    padded = model.residual_stream(tv.tasks.TokenBatch.from_lists(ROWS))
    assert torch.equal((padded == 0).all(-1)[0], ~tv.tasks.TokenBatch.from_lists(ROWS).mask)


# ---- contexts --------------------------------------------------------------------------------------------------------


def test_a_context_edits_every_pass_inside_it_and_none_after(model):
    edit = Zero("mlp_out[1]")
    clean, edited = model.run(TOKENS), model.run(TOKENS, edit)
    with model.intervene(edit) as inside:
        assert inside is model
        assert torch.equal(model.run(TOKENS), edited)
        assert not model.capture(TOKENS, "mlp_out[1]")["mlp_out[1]"].any()
        assert torch.equal(model.tl(TOKENS)[:, -1], model.run(TOKENS, logits="all")[:, -1])  # also a pass by hand
    assert torch.equal(model.run(TOKENS), clean)


def test_a_context_counts_positions_in_passes_made_by_hand(llama):
    with llama.intervene(Replace("resid_post[2]@-1", torch.zeros(tiny.D_MODEL))):
        by_hand = llama.tl(TOKENS)
    assert close(by_hand[:, -1], llama.run(TOKENS, Zero("resid_post[2]@-1")))
    assert close(by_hand[:, :-1], llama.run(TOKENS, logits="all")[:, :-1])


def test_contexts_nest_and_an_exception_ends_them(llama):
    ones, clean = torch.ones(tiny.D_MODEL), llama.run(TOKENS)
    three = llama.run(TOKENS, Replace("resid_post[1]", 3 * ones))
    with pytest.raises(RuntimeError, match="stop"), llama.intervene(Replace("resid_post[1]", ones)):
        with llama.intervene(Add("resid_post[1]", ones)), llama.intervene(Add("resid_post[1]", ones)):
            assert torch.equal(llama.run(TOKENS), three)
            raise RuntimeError("stop")
    assert torch.equal(llama.run(TOKENS), clean)


def test_a_context_of_nothing_and_a_context_never_run_are_no_error(llama):
    clean = llama.run(TOKENS)
    with llama.intervene(), llama.intervene(Zero("z[1]")):
        pass
    assert torch.equal(llama.run(TOKENS), clean)


# ---- what it is ------------------------------------------------------------------------------------------------------


def test_a_model_prints_its_architecture_at_a_glance(speaking):
    assert repr(speaking) == (
        "HookedModel speaking (LlamaForCausalLM)\n"
        "  3 layers, 4 heads (2 key-value), d_model 32, d_head 8, d_mlp 64, vocabulary 96, context 64\n"
        "  0.0M parameters, float32 on cpu; BOS not prepended; "
        f"fingerprint {speaking.fingerprint}\n"
        f"  {speaking.checked}"
    )
    assert len(speaking.fingerprint) == 16


# ---- the real one ----------------------------------------------------------------------------------------------------


def test_the_real_model_reads_and_writes_everything(smollm2):
    support = {
        name: smollm2.registry.support(Site(name, 29 if e.layered else None)).word for name, e in COMPONENTS.items()
    }
    assert set(support.values()) == {"write"}
    assert not smollm2.prepends_bos
    assert smollm2.tokens("The capital of France is").ids.shape == (1, 5)
    assert smollm2.tokenizer.decode(smollm2.run("The capital of France is").argmax(-1)) == " Paris"
    stream = smollm2.residual_stream("The capital of France is")
    assert stream.shape == (30, 1, 5, 576)


def test_on_the_real_model_padding_changes_nothing_and_a_full_resid_mid_decides_everything(smollm2):
    texts = ["The capital of France is", "Hot is to cold as up is to", "The capital of Italy is"]
    padded = smollm2.run(texts)
    alone = torch.cat([smollm2.run(text) for text in texts])
    assert torch.allclose(padded, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))
    france = smollm2.capture(texts[0], "resid_mid[12]")
    patched = smollm2.run(texts[2], Replace("resid_mid[12]", france["resid_mid[12]"]))
    assert torch.allclose(patched, alone[:1], rtol=0, atol=1e-5 * float(alone.abs().max()))
    assert smollm2.tokenizer.decode(patched.argmax(-1)) == " Paris"
