"""Verdicts are about the model as it is: forgotten with any change, found once, left unknown by whatever interrupts."""

from __future__ import annotations

import threading

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from hooked_cases import TOKENS
from tv_lens.errors import ModelChanged, ModelMismatch, RunMismatch
from tv_lens.intervention import Zero
from tv_lens.model.masking import supports_masking

PAIRS = tiny_characters.pairings(1)[0].pairs(shots=2, n=2)


@pytest.fixture
def own():
    """A model of this test alone."""
    return tiny_characters.model("llama", seed=4)


def sweep(model, **options):
    return tv.patch(model, PAIRS, tv.sites("resid_post"), over=("layer", "pos"), progress=False, **options)


def trained(model):
    with torch.no_grad():
        for parameter in model.tl.original_model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(1.05)


def hooked(model):
    model.tl.original_model.model.layers[0].register_forward_hook(
        lambda module, given, out: (out[0] * 1.1, *out[1:]) if isinstance(out, tuple) else out * 1.1
    )


def test_a_verdict_is_found_once_and_again_after_a_change(own):
    tries = []

    def look():
        tries.append(own.registry.attached)
        return True

    with own.intervene(Zero("z[1]")):
        assert own.facts.find("a test", look) and own.facts.find("a test", look)
    assert tries == [()]  # found once, with nothing attached
    assert "a test: yes" in repr(own.facts)
    trained(own)
    own.facts.find("a test", look)
    assert len(tries) == 2
    own.facts.forget()
    assert repr(own.facts) == "nothing was tried on this model yet"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_whatever_interrupts_a_trial_leaves_no_verdict(own, error):
    def fail():
        raise error

    with pytest.raises(error):
        own.facts.find("a test", fail)
    assert own.facts.known("a test", "unknown") == "unknown"
    assert own.facts.find("a test", lambda: "found") == "found"


def test_threads_that_ask_while_a_trial_runs_wait_for_its_verdict(own):
    started, go, answers = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        assert go.wait(10)
        return "the verdict"

    threads = [threading.Thread(target=lambda: answers.append(own.facts.find("a test", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert started.wait(10) and answers == []
    go.set()
    for thread in threads:
        thread.join(20)
    assert answers == ["the verdict"] * 4


@pytest.mark.parametrize("change", [trained, hooked])
def test_sweeps_after_a_change_are_those_of_the_changed_model(own, change):
    sweep(own)  # rows are found to agree, and this is remembered
    change(own)
    found, whole = sweep(own), sweep(own, engine="passes")
    torch.testing.assert_close(found.values.values, whole.values.values, atol=1e-5, rtol=0)
    if change is hooked:
        assert "by hand (model.layers.0 (forward hook))" in found.provenance["engine_why"]


@pytest.mark.parametrize("change", [trained, hooked, lambda model: model.tl.to(torch.bfloat16)])
def test_what_was_saved_before_a_change_is_refused_after_it(own, change, tmp_path):
    sweep(own, folder=tmp_path / "run")
    before = own.fingerprint
    vector = tv.TaskVector(torch.ones(32), "resid_post[1]@-1", task="t", model=own.name, fingerprint=before)
    vector.check(own)
    change(own)
    assert own.fingerprint != before
    with pytest.raises(RunMismatch, match="fingerprint"):
        sweep(own, folder=tmp_path / "run")
    with pytest.raises(ModelMismatch):
        vector.check(own)


@pytest.mark.parametrize("change", [trained, hooked])
def test_a_model_that_changes_while_a_verb_runs_is_an_error_that_names_the_change(own, change):
    once = [change]

    @tv.metrics.metric(units="logits", sign="up")
    def changing(logits, answers):
        if once:
            once.pop()(own)
        return logits[:, 5]

    with pytest.raises(ModelChanged, match="The model changed while patch ran") as caught:
        sweep(own, metric=changing)
    assert ("weights" if change is trained else "hooks") in caught.value.got
    assert own.registry.attached == ()
    sweep(own)  # the model as it is now can be measured


def test_a_hook_that_is_on_before_a_verb_and_off_after_it_is_no_change(own):
    with own.tl.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda x, hook: 1.1 * x)]):
        inside = sweep(own)
    assert inside.provenance["engine"] == "passes" and not (inside.values.values == sweep(own).values.values).all()


def test_every_kind_of_verdict_is_on_the_object_and_printed(own):
    supports_masking(own)
    sweep(own)
    tv.node_effects(own, PAIRS, progress=False)
    assert "masking is honoured: yes" in repr(own.facts) and 'the engine "rows" is exact: yes' in repr(own.facts)


def test_the_same_weights_in_another_model_have_the_same_fingerprint():
    one, other = (tv.load(tiny.hugging_face_model("llama")) for _ in range(2))
    assert one.fingerprint == other.fingerprint
    trained(one), trained(other)
    assert one.fingerprint == other.fingerprint != tv.load(tiny.hugging_face_model("llama")).fingerprint
    assert torch.isfinite(one.run(TOKENS)).all()
