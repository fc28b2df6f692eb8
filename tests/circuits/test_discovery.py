"""`discover`: every method scores every edge, estimates are rechecked, and what cannot be measured is refused."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast, question, tokens, vector
from tv_lens.circuits import eap, exact
from tv_lens.circuits.estimate import spearman
from tv_lens.errors import InvalidArgument, RunMismatch, UnknownName
from tv_lens.storage.run_folder import Shards


def given(case: str) -> dict:
    asked = question(case)
    return {name: getattr(asked, name) for name in ("source", "against", "target", "metric", "pos")}


def replace_budget(model, budget: int) -> int:
    before, model.memory_budget = model.memory_budget, budget
    return before


@pytest.mark.parametrize(
    "method",
    [
        tv.circuits.ExactEdges(),
        tv.circuits.EAP(recheck=5),
        tv.circuits.EAP(gradient_at="corrupted", recheck=0),
        tv.circuits.EAPIG(3, recheck=0),
        tv.circuits.EAPIG(2, where="activations", recheck=0),
        tv.circuits.ACDC(0.05),
    ],
    ids=repr,
)
def test_every_method_scores_every_edge_and_batches_change_nothing(tiny_model, method):
    model = tiny_model("qwen3")
    whole = tv.discover(model, contrast(4), **given("vector at the last token"), method=method)
    assert whole.values.shape == (4, len(whole.graph)) and not whole.values.isnan().any()
    assert whole.approximate == isinstance(method, (tv.circuits.EAP, tv.circuits.EAPIG))
    small = replace_budget(model, 2**20)
    try:
        torch.testing.assert_close(
            tv.discover(model, contrast(4), **given("vector at the last token"), method=method).values,
            whole.values,
            atol=2e-5,
            rtol=1e-4,
        )
    finally:
        model.memory_budget = small


def test_estimates_say_what_they_are_worth(tiny_model):
    found = tv.discover(
        tiny_model("gpt2"), contrast(3), **given("vector at the last token"), method=tv.circuits.EAPIG(20, recheck=30)
    )
    about = found.provenance["recheck"]
    assert about["n"] == 30 and about["left_out_n"] == 30 and about["left_out_largest"] >= about["left_out_mean"]
    assert abs(about["completeness_gap"]) < 0.02 * abs(float(found.gap.mean()))
    plain = tv.discover(
        tiny_model("gpt2"), contrast(3), **given("vector at the last token"), method=tv.circuits.EAP(recheck=30)
    )
    assert abs(about["completeness_gap"]) < abs(plain.provenance["recheck"]["completeness_gap"])
    measured = tv.discover(tiny_model("gpt2"), contrast(3), **given("vector at the last token"))
    best = found.order()[:30]
    assert about["spearman"] == pytest.approx(spearman(found.mean()[best], measured.mean()[best]), abs=1e-3)
    assert "spearman" in repr(found) and found.gradient_at == "path" and measured.gradient_at is None


def test_screened_and_chosen_readers_are_the_exact_effects_of_those_edges(tiny_model):
    model, arguments = tiny_model("llama"), given("pairs")
    everything = tv.discover(model, contrast(2, pairs=True), **arguments)
    screened = tv.discover(model, contrast(2, pairs=True), **arguments, method=tv.circuits.ExactEdges(screen=30))
    assert len(screened.measured) == 30
    torch.testing.assert_close(
        screened.values[:, screened.measured], everything.values[:, screened.measured], atol=2e-5, rtol=1e-4
    )
    into = tv.discover(
        model, contrast(2, pairs=True), **arguments, method=tv.circuits.ExactEdges(into=("m2", "a1.kv0<k>"))
    )
    assert {into.graph.readers[r] for r in into.graph.edges[into.measured, 2].tolist()} == {"m2", "a1.kv0<k>"}
    with pytest.raises(UnknownName, match="a1.h1<q>"):
        tv.discover(model, contrast(2, pairs=True), **arguments, method=tv.circuits.ExactEdges(into=("a1.h1<k>",)))


def test_a_killed_discovery_continues_and_another_one_is_refused(tiny_model, tmp_path, monkeypatch):
    model, arguments = tiny_model("llama"), given("vector at the last token")
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 200)  # two prompts a shard
    measured, calls = exact.measured_effects, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*args, **kwargs)

    monkeypatch.setattr(exact, "measured_effects", killed)
    with pytest.raises(KeyboardInterrupt):
        tv.discover(model, contrast(4), **arguments, folder=tmp_path / "run")
    again = tv.discover(model, contrast(4), **arguments, folder=tmp_path / "run")
    assert len(calls) == 3  # one shard, the killed one, and the killed one again
    assert torch.equal(again.values, tv.discover(model, contrast(4), **arguments).values)
    with pytest.raises(RunMismatch, match="contrast"):
        tv.discover(model, contrast(4, seed=5), **arguments, folder=tmp_path / "run")


KEPT = {
    "EAP": tv.circuits.EAP(recheck=6),
    "EAPIG": tv.circuits.EAPIG(2, recheck=6),
    "EAPIG activations": tv.circuits.EAPIG(2, where="activations", recheck=0),
    "ACDC": tv.circuits.ACDC(0.03),
    "screened": tv.circuits.ExactEdges(screen=20),
    "exact": tv.circuits.ExactEdges(),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("at", [1, 3])
def test_every_method_goes_on_where_it_was_stopped(name, at, tiny_model, tmp_path, monkeypatch):
    """Stopped after each of the first shards, wherever that is: in the gradients, a round, or the measuring after."""
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 30)
    monkeypatch.setattr(eap, "TOKENS_A_SHARD", 12)
    model, asked = tiny_model("llama"), dict(given("vector at the last token"), method=KEPT[name], seed=3)
    expected = tv.discover(model, contrast(4), **asked)
    own, puts = Shards.put, []

    def stop(self, *arguments):
        own(self, *arguments)
        puts.append(self.folder)
        if len(puts) == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Shards, "put", stop)
        tv.discover(model, contrast(4), **asked, folder=tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert len(kept) == at
    found = tv.discover(model, contrast(4), **asked, folder=tmp_path)
    torch.testing.assert_close(found.values, expected.values, atol=0, rtol=0, equal_nan=True)
    about, plain = (dict(one.provenance) for one in (found, expected))
    assert about.pop("folder") == str(tmp_path) and about == plain, "the measuring after it, too"
    assert all(path.read_bytes() == content for path, content in kept.items())

    with monkeypatch.context() as patched:  # all is there: nothing is put again
        patched.setattr(Shards, "put", lambda *arguments: pytest.fail("a shard was computed again"))
        again = tv.discover(model, contrast(4), **asked, folder=tmp_path)
    torch.testing.assert_close(again.values, expected.values, atol=0, rtol=0, equal_nan=True)
    other = {"EAP": tv.circuits.EAP(recheck=7), "ACDC": tv.circuits.ACDC(0.04)}.get(
        name, tv.circuits.ExactEdges(screen=3)
    )
    with pytest.raises(RunMismatch, match="method"):
        tv.discover(model, contrast(4), **asked | {"method": other}, folder=tmp_path)


def test_against_another_vector_only_the_difference_counts(tiny_model):
    model, same = tiny_model("llama"), tv.Replace("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="nothing to explain"):
        tv.discover(model, contrast(), source=same, against=same)
    other = tv.Replace("resid_post[0]@-1", vector(5))
    ab = tv.discover(model, contrast(), source=same, against=other)
    assert torch.allclose(ab.gap, tv.discover(model, contrast(), source=same).clean - ab.corrupted, atol=1e-5)
    with pytest.raises(InvalidArgument, match="acts at the source's site"):
        tv.discover(model, contrast(), source=same, against=tv.Replace("resid_post[1]@-1", vector(5)))


def test_what_cannot_be_asked_is_refused_in_words(tiny_model):
    model, source = tiny_model("llama"), tv.Replace("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="not a method"):
        tv.discover(model, contrast(), source=source, method=tv.circuits.EAP)
    with pytest.raises(UnknownName, match="inputs"):
        tv.circuits.EAPIG(where="input")
    with pytest.raises(UnknownName, match="run"):
        tv.circuits.EAP(gradient_at="a")
    with pytest.raises(InvalidArgument, match="threshold"):
        tv.circuits.ACDC(float("nan"))
    with pytest.raises(InvalidArgument, match="something is attached"), model.intervene(tv.Zero("z[0].h1")):
        tv.discover(model, contrast(), source=source)
    with pytest.raises(InvalidArgument, match="mixes the prompts"):
        tv.discover(model, contrast(), source=tv.Mean("resid_post[0]@-1"))
    with pytest.raises(InvalidArgument, match="at one position"):
        tv.discover(model, contrast(), source=tv.Replace("resid_post[0]", vector()))
    with pytest.raises(UnknownName, match="spans"):
        tv.discover(model, contrast(pairs=True), pos="span")


def test_nothing_stays_on_the_model(tiny_model):
    model = tiny_model("gpt2")
    asking = [parameter.requires_grad for parameter in model.tl.parameters()]
    before = model.run(tokens(2, 5, 0))
    tv.discover(model, contrast(2), **given("vector at the last token"), method=tv.circuits.EAP(recheck=3))
    with pytest.raises(RuntimeError, match="on purpose"):
        model.gradients(tokens(1, 4, 0), [tv.Site("q", 0)], fail)
    assert [parameter.requires_grad for parameter in model.tl.parameters()] == asking
    assert (
        torch.equal(model.run(tokens(2, 5, 0)), before)
        and not model.registry.attached
        and not model.registry.foreign_hooks()
    )


def fail(logits):
    raise RuntimeError("on purpose")
