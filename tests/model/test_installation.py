"""What stands on a model is what its live attachments need, also after interrupts at any line."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from hooked_cases import TOKENS, state_of
from interrupting import interrupted_after, interrupted_at, lines_of
from tv_lens.errors import ModelInUse
from tv_lens.intervention import Zero

PROMPTS = ["abcd", "efg"]
EDITS = ("z[1].h1", "resid_post[1]@-1", "result[0].h2")


def everything(model) -> dict:
    """The state that an interrupt could leave changed, without what grows or is noted on purpose."""
    forwards = sum("forward" in vars(module) for module in model.tl.modules())
    frozen = sum(not parameter.requires_grad for parameter in model.tl.parameters())
    return {**state_of(model.tl), "forwards": forwards, "frozen": frozen}


def is_free(model) -> bool:
    """Whether another thread can have the model."""
    free = []

    def take():
        with model.registry.lock.turn("another thread"):
            free.append(True)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(2)
    return bool(free)


def enter_and_leave(model):
    with model.intervene(*map(Zero, EDITS)):
        with model.intervene(Zero("mlp_out[0]")):
            pass


def one_gradient(model):
    batch = model.tokens(PROMPTS)
    model.gradients(batch, [tv.Site("resid_pre", 0)], lambda logits: logits[:, 5])


def test_an_interrupt_at_any_line_of_entering_and_leaving_leaves_the_model_as_it_was():
    """About one line in a thousand here, one in thirty in the slow test."""
    assert in_fresh_process(_some_lines) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_interrupt_at_every_thirtieth_line_leaves_the_model_as_it_was():
    assert in_fresh_process(_many_lines, timeout=1700) == []


def _some_lines() -> list[str]:
    return _left_behind(step=997, offset=7)


def _many_lines() -> list[str]:
    return _left_behind(step=31, offset=0)


def _left_behind(step: int, offset: int) -> list[str]:
    """What interrupts at every `step`-th line left behind: nothing, if all is well."""
    torch.set_num_threads(1)
    model, found = tiny_characters.model("llama"), []
    plain, before = model.run(PROMPTS), everything(model)
    for work in (enter_and_leave, one_gradient):
        for line in range(1 + offset, lines_of(lambda: work(model)), step):
            if not interrupted_at(line, lambda: work(model)):
                break
            now = everything(model)
            found += [f"{work.__name__}, line {line}: {part}" for part in before if now[part] != before[part]]
            if not is_free(model):
                found.append(f"{work.__name__}, line {line}: the lock")
            if not torch.equal(model.run(PROMPTS), plain):
                found.append(f"{work.__name__}, line {line}: an edit")
            if found:
                return found
    return found


def test_signals_at_random_moments_leave_the_model_as_it_was():
    assert in_fresh_process(_signals) == []


def _signals() -> list[str]:
    torch.set_num_threads(1)
    model, found = tiny_characters.model("llama"), []
    plain, before = model.run(PROMPTS), everything(model)
    draws = torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist()
    for draw in draws:
        interrupted_after(0.0005 + 0.03 * draw, lambda: [enter_and_leave(model) for _ in range(3)])
        if everything(model) != before or not torch.equal(model.run(PROMPTS), plain) or not is_free(model):
            found.append(f"after {draw}")
    return found


def test_what_an_abandoned_context_put_on_is_off_when_its_object_is_freed(llama):
    before, clean = state_of(llama.tl), llama.run(TOKENS)
    context = llama.intervene(Zero("resid_post[2]"), Zero("result[0]"))
    context.__enter__()
    assert not torch.equal(llama.run(TOKENS), clean)
    del context
    gc.collect()
    assert state_of(llama.tl) == before and torch.equal(llama.run(TOKENS), clean) and llama.registry.attached == ()


def test_a_context_left_in_another_thread_is_off_and_says_so(llama):
    before, clean, raised = state_of(llama.tl), llama.run(TOKENS), []
    context = llama.intervene(Zero("resid_post[2]"))
    context.__enter__()

    def leave():
        with pytest.raises(ModelInUse, match="left in another thread") as caught:
            context.__exit__(None, None, None)
        raised.append(caught.value)

    thread = threading.Thread(target=leave, name="the other")
    thread.start()
    thread.join(10)
    assert "'the other'" in str(raised[0]) and "use `with`" in raised[0].do
    assert is_free(llama) and state_of(llama.tl) == before and torch.equal(llama.run(TOKENS), clean)


def test_hooks_that_transformer_lens_registered_and_did_not_note_are_removed(llama):
    """As where it is interrupted inside `add_hook`: PyTorch has the hook, the hook point's list has not."""
    before, clean = state_of(llama.tl), llama.run(TOKENS)
    context = llama.intervene(Zero("resid_post[2]"))
    context.__enter__()
    llama.tl.get_hook_point("blocks.2.hook_resid_post").fwd_hooks.clear()
    context.__exit__(None, None, None)
    assert state_of(llama.tl) == before and torch.equal(llama.run(TOKENS), clean)


def test_a_pass_that_was_to_stop_early_and_was_interrupted_stops_no_later_one(llama):
    clean = llama.run(TOKENS)
    for block in llama.tl.blocks:  # as TransformerLens leaves them where it is interrupted before its own clean-up
        block._stop_at_layer_idx = 1
    assert torch.equal(llama.run(TOKENS), clean)


def test_weights_that_need_no_gradient_stay_so_after_gradients_were_taken():
    model = tv.load(tiny.hugging_face_model("llama"), tokenizer=tiny_characters.tokenizer())
    (first, *others) = model.tl.parameters()
    first.requires_grad_(False)
    one_gradient(model)
    assert not first.requires_grad and all(parameter.requires_grad for parameter in others)


def test_what_is_bare_sees_nothing_of_the_attachments_around_it(llama):
    clean, edited = llama.run(TOKENS), llama.run(TOKENS, Zero("z[1]"))
    with llama.intervene(Zero("z[1]")):
        with llama.registry.bare("a test"):
            assert llama.registry.attached == () and torch.equal(llama.run(TOKENS), clean)
            assert torch.equal(llama.run(TOKENS, Zero("z[1]")), edited)
        assert torch.equal(llama.run(TOKENS), edited)
