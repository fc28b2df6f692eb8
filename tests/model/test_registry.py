"""Attaching and leaving: every hook is the registry's, refused calls and errors leave no trace, threads wait.

The laws of docs/registry-laws.md are named by their numbers; `tests/oracle/test_oracle_hooks.py` checks the same
machinery against plain hooks, and `tests/test_architecture.py` the half of R1 that is about source code.
"""

from __future__ import annotations

import sys
import threading

import pytest
import torch
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tv_lens as tv
from hooked_cases import (
    BATCH,
    ORIGINAL_ATTENTION,
    PARALLEL,
    POS,
    TOKENS,
    Call,
    Noise,
    expected_word,
    open_and_run,
    sites_with,
    state_of,
)
from tv_lens.errors import ShapeMismatch, SiteAbsent, SiteError, SiteNotWritable, TVLensError
from tv_lens.intervention import Add, Mean, Replace, Zero
from tv_lens.site import COMPONENTS, Site

# ---- R1: only the registry adds hooks or sets flags ------------------------------------------------------------------


def test_R1_every_hook_of_a_run_is_added_by_the_registry(llama, monkeypatch):
    files, original = set(), HookPoint.add_hook

    def spy(self, *args, **kwargs):
        frame = sys._getframe(1)
        while "tv_lens" not in frame.f_globals.get("__name__", "").split(".")[0]:
            frame = frame.f_back
        files.add(frame.f_globals["__name__"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HookPoint, "add_hook", spy)
    with llama.intervene(Zero("z[1]")):
        llama.run(TOKENS)
        llama.capture(TOKENS, "result[0]")
        llama.residual_stream(TOKENS)
    assert files == {"tv_lens.model.installation"}


# ---- R2: what is attached runs, or the call raises -------------------------------------------------------------------


@pytest.mark.parametrize("outer", ["resid_post[2]", "final_norm", "mlp_out[2]", "resid_mid[2]", "embed"])
def test_R2_a_capture_of_early_layers_runs_on_to_the_edits_around_it(llama, outer):
    with llama.intervene(Zero(outer)):
        found = llama.capture(TOKENS, "resid_post[0]")  # would stop after layer 0
    edited = outer == "embed"
    assert torch.equal(found["resid_post[0]"], llama.capture(TOKENS, "resid_post[0]")["resid_post[0]"]) != edited


def test_R2_hooks_torn_off_by_a_reset_come_back_before_the_next_pass(llama):
    zeroed = llama.run(TOKENS, Zero("resid_post[1]"))
    with llama.intervene(Zero("resid_post[1]")):
        llama.tl.reset_hooks()
        assert torch.equal(llama.run(TOKENS), zeroed)


# ---- R4: the model is left as it was found ---------------------------------------------------------------------------


def test_R4_loading_and_probing_leave_a_bridge_as_transformer_lens_made_it(family):
    original = tiny.hugging_face_model(family)
    bridge = build_bridge_from_module(original, type(original).__name__, hf_config=original.config)
    bridge(TOKENS)  # some Hugging Face models add hooks of their own on their first pass
    before = state_of(bridge)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    tv.load(bridge)
    assert state_of(bridge) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_R4_after_every_call_the_hooks_and_flags_are_as_before(model, family):
    before = state_of(model.tl)
    readable, writable = (
        [site for site in sites_with(family, *words) if site.layer in (None, 1)]
        for words in (("read", "write"), ("write",))
    )
    clean = model.run(TOKENS)
    model.run(TOKENS, [Noise(site) for site in writable], logits="all")
    assert state_of(model.tl) == before
    model.capture(TOKENS, readable)
    model.residual_stream(TOKENS)
    with model.intervene(*[Noise(site) for site in writable]):
        during = state_of(model.tl)
        model.run(TOKENS)
        assert state_of(model.tl) == during
        with model.intervene(Zero("embed")):
            pass
        assert state_of(model.tl) == during
    assert during != before and state_of(model.tl) == before
    assert torch.equal(model.run(TOKENS), clean)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
def test_R4_an_exception_inside_a_hook_leaves_the_model_as_before(llama, error):
    before, clean = state_of(llama.tl), llama.run(TOKENS)

    def fail(x):
        raise error()

    for layer in range(tiny.LAYERS):
        edits = [Zero("result[1]"), Zero(f"resid_mid[{layer}]"), Call(f"mlp_out[{layer}]", fail)]
        for call in (llama.run, lambda t, e: open_and_run(llama, t, e)):
            with pytest.raises(error):
                call(TOKENS, edits)
            assert state_of(llama.tl) == before and llama.registry.attached == ()
    # A device that was full once is given smaller batches from then on, and products of other shapes round differently.
    torch.testing.assert_close(llama.run(TOKENS), clean, rtol=0, atol=1e-5 if error is MemoryError else 0)
    llama.facts.forget()  # what a full device held is remembered: not by later tests


def test_R4_an_exception_in_an_inner_context_keeps_the_outer_one(llama):
    zeroed = llama.run(TOKENS, Zero("resid_post[1]"))
    with llama.intervene(Zero("resid_post[1]")):
        during = state_of(llama.tl)["flags"]
        with pytest.raises(ShapeMismatch), llama.intervene(Replace("result[0]", torch.ones(3))):
            llama.run(TOKENS)
        assert [a.who for a in llama.registry.attached] == ["model.intervene"]
        assert state_of(llama.tl)["flags"] == during
        assert torch.equal(llama.run(TOKENS), zeroed)


REFUSED = {
    "no such layer": lambda m: m.run(TOKENS, Zero("z[3]")),
    "no such head": lambda m: m.capture(TOKENS, "v[0].h2"),
    "shape": lambda m: m.run(TOKENS, Replace("z[0]", torch.ones(3))),
    "position": lambda m: m.run(TOKENS, Zero("z[0]@7")),
    "twice": lambda m: m.run(TOKENS, [Zero("z[0]"), Zero("z[0].h1")]),
    "one prompt": lambda m: m.run(TOKENS[:1], Mean("z[0]")),
    "budget": lambda m: m.capture(TOKENS, "z[0]", memory_budget=10),
    "nothing asked": lambda m: m.capture(TOKENS, []),
    "vocabulary": lambda m: m.run(torch.tensor([[1, tiny.VOCAB]])),
    "context": lambda m: m.run(torch.ones(1, tiny.CONTEXT + 1, dtype=torch.long)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_R4_a_refused_call_leaves_the_model_as_before(llama, name):
    before = state_of(llama.tl)
    with pytest.raises(TVLensError):
        REFUSED[name](llama)
    assert state_of(llama.tl) == before and llama.registry.attached == ()


def test_R4_hooks_and_flags_of_somebody_else_stay_and_keep_working(llama):
    seen = []

    def theirs(x, hook):
        seen.append(hook.name)

    llama.tl.add_hook("blocks.1.hook_resid_pre", theirs)
    llama.tl.set_use_attn_result(True)
    try:
        before = state_of(llama.tl)
        assert llama.registry.foreign_hooks() != []
        llama.run(TOKENS, [Zero("resid_pre[1]"), Zero("result[0]")])
        llama.capture(TOKENS, "result[2]")
        assert len(seen) == 2 and state_of(llama.tl) == before and llama.tl.cfg.use_attn_result
    finally:
        llama.tl.reset_hooks()
        llama.tl.set_use_attn_result(False)
    assert llama.registry.foreign_hooks() == []


def test_R4_contexts_left_in_another_order_than_entered_leave_nothing(llama):
    before, clean = state_of(llama.tl), llama.run(TOKENS)
    first, second = llama.intervene(Zero("result[0]")), llama.intervene(Zero("z[1]"))
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(llama.run(TOKENS), (only := llama.run(TOKENS))) and not torch.equal(only, clean)
    second.__exit__(None, None, None)
    assert state_of(llama.tl) == before and torch.equal(llama.run(TOKENS), clean)


def test_R4_transformer_lens_contexts_inside_and_around_ours_stay_whole(llama):
    seen = []

    def theirs(x, hook):
        seen.append(1)

    before = state_of(llama.tl)
    with llama.tl.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", theirs)]):
        with llama.intervene(Zero("z[1]")):
            with llama.tl.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", theirs)]):
                llama.run(TOKENS)
            llama.run(TOKENS)
        llama.run(TOKENS)
    assert len(seen) == 4 and state_of(llama.tl) == before


# ---- R8: everybody attaches through it, and it can be printed --------------------------------------------------------


def test_R8_printing_the_registry_shows_who_is_attached_now(llama):
    seen = []
    look = Call("final_norm", lambda x: seen.append(repr(llama.registry)))
    with llama.intervene(look, Zero("z[1].h2@-1")):
        llama.run(TOKENS, Zero("mlp_out[0]"))
        llama.capture(TOKENS, ["embed", "resid_post[2]"])
    head = (
        "LlamaForCausalLM: 3 layers; \n  attached by model.intervene: Call(final_norm), Zero(z[1].h2@-1); reads nothing"
    )
    assert seen[0].startswith(head + "\n  attached by model.run: Zero(mlp_out[0]); reads nothing\n")
    assert seen[1].startswith(head + "\n  attached by model.capture: no edit; reads embed, resid_post[2]\n")
    assert repr(llama.registry).startswith("LlamaForCausalLM: 3 layers; nothing is attached\n")


# ---- R9: presence is not enough --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(ORIGINAL_ATTENTION))
def test_R9_a_write_that_would_be_discarded_is_refused(tiny_model, family):
    model, before = tiny_model(family), state_of(tiny_model(family).tl)
    site = Site("pattern", 1, head=2)
    with pytest.raises(SiteNotWritable) as caught:
        model.run(TOKENS, Zero(site))
    assert str(caught.value) == (
        f"An edit at {site} would be discarded by {model.architecture}.\n"
        f"  got:     {site}\n"
        "  do:      the hook can be read, but the model does not use what is written there "
        "(attention is computed by the original code)."
    )
    with pytest.raises(SiteNotWritable), model.intervene(Zero(site)):
        pass
    assert model.capture(TOKENS, site)[site].shape == (BATCH, POS, POS)
    assert state_of(model.tl) == before


@pytest.mark.parametrize("family", sorted(PARALLEL))
def test_R9_an_absent_site_is_refused_with_what_there_is(tiny_model, family):
    model = tiny_model(family)
    for call in (lambda: model.capture(TOKENS, "resid_mid[1]"), lambda: model.run(TOKENS, Zero("resid_mid[1]"))):
        with pytest.raises(SiteAbsent) as caught:
            call()
        present = [name for name in COMPONENTS if expected_word(family, name) != "absent"]
        assert str(caught.value) == (
            f"This {model.architecture} has no resid_mid.\n"
            "  got:     resid_mid[1]\n"
            f"  allowed: {', '.join(present)}\n"
            "  do:      this architecture has no such hook in TransformerLens."
        )


# ---- R10: one lock a model -------------------------------------------------------------------------------------------


def test_R10_a_second_thread_waits_for_the_first_ones_context(llama):
    clean, done, results = llama.run(TOKENS), threading.Event(), []

    def other():
        results.append(llama.run(TOKENS))
        done.set()

    with llama.intervene(Zero("resid_post[2]")):
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert not done.wait(0.3), "it ran inside a context that is not its own"
        assert torch.equal(llama.run(TOKENS)[0], llama.run(TOKENS)[1])  # all prompts alike: the edit is on
    thread.join(10)
    assert done.is_set() and torch.equal(results[0], clean)


def test_R10_threads_that_share_a_model_never_see_each_others_edits(llama):
    edits = [Zero("z[0]"), Zero("mlp_out[1]"), Add("resid_mid[1]", torch.ones(tiny.D_MODEL)), Zero("result[2].h1")]
    alone = [llama.run(TOKENS, edit) for edit in edits]
    streams = [llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"]]
    wrong = []

    def work(edit, expected):
        for _ in range(8):
            if not torch.equal(llama.run(TOKENS, edit), expected):
                wrong.append(edit.label)
            if not torch.equal(llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"], streams[0]):
                wrong.append("capture")

    threads = [threading.Thread(target=work, args=pair) for pair in zip(edits, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_R10_the_lock_is_free_again_after_an_error(llama):
    with pytest.raises(SiteError):
        llama.run(TOKENS, Zero("z[9]"))
    results = []
    thread = threading.Thread(target=lambda: results.append(llama.run(TOKENS)), daemon=True)
    thread.start()
    thread.join(10)
    assert len(results) == 1


# ---- contexts --------------------------------------------------------------------------------------------------------


def test_a_second_thread_waits_until_a_capture_is_done(llama, monkeypatch):
    """Both threads capture and edit at once; the lock hands the model from pass to pass, never inside one."""
    clean = llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"]
    edited = llama.run(TOKENS, Zero("resid_mid[0]"))
    wrong = []

    def capture():
        for _ in range(10):
            if not torch.equal(llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"], clean):
                wrong.append("capture")

    thread = threading.Thread(target=capture)
    thread.start()
    for _ in range(10):
        if not torch.equal(llama.run(TOKENS, Zero("resid_mid[0]")), edited):
            wrong.append("run")
    thread.join(60)
    assert wrong == [] and not thread.is_alive()


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_two_models_of_one_bridge_share_its_lock(llama):
    twin = tv.load(llama.tl)
    assert twin.registry.lock is llama.registry.lock and twin.registry is not llama.registry
