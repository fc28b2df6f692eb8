"""Edges found on every architecture: the full circuit is the clean run, the empty one the corrupted run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tv_lens as tv
from circuit_cases import CASES, answers, contrast, passes, question, tokens, vector
from tv_lens.circuits.contrast_passes import make_passes
from tv_lens.circuits.discovery import spearman
from tv_lens.circuits.exact import measured_effects
from tv_lens.circuits.patched import run_circuits
from tv_lens.errors import InvalidArgument, MisalignedPrompts, PositionError, UnknownName
from tv_lens.tasks.tokenized import TokenSpan


def some_edges(made, n: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randperm(len(made.graph), generator=torch.Generator().manual_seed(seed))[:n]


@pytest.mark.parametrize("case", CASES)
def test_the_full_circuit_is_the_clean_run_and_the_empty_one_the_corrupted_run(tiny_model, family, case):
    made = passes(tiny_model(family), case)
    clean, corrupted = made.baselines
    found = run_circuits(made, torch.tensor([[True], [False]]).expand(2, len(made.graph)))
    torch.testing.assert_close(found[:, 0], clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], corrupted, atol=1e-6, rtol=1e-6)
    assert (clean - corrupted).abs().min() > 1e-3  # there was something to restore


@pytest.mark.parametrize("case", ["vector at the last token", "pairs"])
def test_the_predicted_effect_of_an_edge_is_its_intervened_effect(tiny_model, family, case):
    """One edge measured by rows against a whole circuit run that lacks this edge alone: two ways that share no step."""
    made = passes(tiny_model(family), case, n=2)
    edges = some_edges(made)
    predicted = measured_effects(made, edges)
    masks = torch.ones(len(edges), len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    intervened = made.baselines[0][:, None] - run_circuits(made, masks)
    torch.testing.assert_close(predicted, intervened, atol=2e-5, rtol=1e-4)
    assert predicted.abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES[2:])
def test_predicted_is_intervened_with_a_target_and_with_a_vector_inside_the_prompt(tiny_model, case):
    made = passes(tiny_model("gemma2"), case, n=2)
    edges = some_edges(made, 40)
    masks = torch.ones(len(edges), len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    intervened = made.baselines[0][:, None] - run_circuits(made, masks)
    torch.testing.assert_close(measured_effects(made, edges), intervened, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("fold, places", [("all", 6), ("spans", 4), ("kinds", 3), ("sum", 1)])
def test_places_of_several_tokens_are_corrupted_together(tiny_model, fold, places):
    """Spans of one and two tokens; an edge of a span is the edge at all its tokens."""
    model, plain = tiny_model("qwen2"), contrast(2, pairs=True)
    spans = (
        TokenSpan("x", 0, 0, 2),
        TokenSpan("y", 0, 2, 3),
        TokenSpan("x", 1, 3, 5),
        TokenSpan("query_x", None, 5, 6),
    )
    made = make_passes(model, replace(plain, spans=[spans, spans]), tv.circuits.CircuitQuestion(pos=fold))
    assert len(made.graph.positions) == places
    edges = some_edges(made, 15)
    masks = torch.ones(len(edges) + 2, len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    masks[-1] = False
    found = run_circuits(made, masks)
    clean, corrupted = made.baselines
    torch.testing.assert_close(measured_effects(made, edges), clean[:, None] - found[:, :-2], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[:, -2:], torch.stack([clean, corrupted], dim=1), atol=1e-5, rtol=1e-5)
    if fold == "sum":
        every = make_passes(model, plain, tv.circuits.CircuitQuestion(pos="all"))
        assert set(made.graph.names()) == {name.split("@")[0] for name in every.graph.names()}


def test_whole_passes_run_the_same_circuits_as_shared_prefixes(tiny_model, monkeypatch):
    from tv_lens.rows import trial

    model = tiny_model("mistral")
    for case in CASES:
        made = passes(model, case)
        masks = torch.rand(4, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.6
        shared = run_circuits(made, masks)
        with monkeypatch.context() as patch:
            patch.setattr(trial, "why_not", lambda *_: "a test")
            torch.testing.assert_close(run_circuits(made, masks), shared, atol=1e-5, rtol=1e-4)


def test_a_circuit_run_may_begin_where_circuits_first_differ(tiny_model):
    for family in ("llama", "phi"):
        made = passes(tiny_model(family), "pairs")
        late = made.graph.read_times[made.graph.edges[:, 2]] >= 4  # into the last layer and the logits
        drawn = torch.rand(5, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.5
        masks = ~late | drawn
        torch.testing.assert_close(
            run_circuits(made, masks, first_layer=2), run_circuits(made, masks), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(
    "method",
    [
        tv.ExactEdges(),
        tv.EAP(recheck=5),
        tv.EAP(gradient_at="corrupted", recheck=0),
        tv.EAPIG(3, recheck=0),
        tv.EAPIG(2, where="activations", recheck=0),
        tv.ACDC(0.05),
    ],
    ids=repr,
)
def test_every_method_scores_every_edge_and_batches_change_nothing(tiny_model, method):
    model = tiny_model("qwen3")
    whole = tv.discover(model, contrast(4), **given("vector at the last token"), method=method)
    assert whole.values.shape == (4, len(whole.graph)) and not whole.values.isnan().any()
    assert whole.approximate == isinstance(method, (tv.EAP, tv.EAPIG))
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


def given(case: str) -> dict:
    made = question(case)
    return {name: getattr(made, name) for name in ("source", "against", "target", "metric", "positions")}


def replace_budget(model, budget: int) -> int:
    before, model.memory_budget = model.memory_budget, budget
    return before


def test_estimates_say_what_they_are_worth(tiny_model):
    found = tv.discover(
        tiny_model("gpt2"), contrast(3), **given("vector at the last token"), method=tv.EAPIG(20, recheck=30)
    )
    about = found.provenance["recheck"]
    assert about["n"] == 30 and about["left_out_n"] == 30 and about["left_out_largest"] >= about["left_out_mean"]
    assert abs(about["completeness_gap"]) < 0.02 * abs(float(found.gap.mean()))
    plain = tv.discover(tiny_model("gpt2"), contrast(3), **given("vector at the last token"), method=tv.EAP(recheck=30))
    assert abs(about["completeness_gap"]) < abs(plain.provenance["recheck"]["completeness_gap"])
    exact = tv.discover(tiny_model("gpt2"), contrast(3), **given("vector at the last token"))
    best = found.order()[:30]
    assert about["spearman"] == pytest.approx(spearman(found.mean()[best], exact.mean()[best]), abs=1e-3)
    assert "spearman" in repr(found) and found.gradient_at == "path" and exact.gradient_at is None


def test_screened_and_chosen_readers_are_the_exact_effects_of_those_edges(tiny_model):
    model, arguments = tiny_model("llama"), given("pairs")
    everything = tv.discover(model, contrast(2, pairs=True), **arguments)
    screened = tv.discover(model, contrast(2, pairs=True), **arguments, method=tv.ExactEdges(screen=30))
    assert len(screened.measured) == 30
    torch.testing.assert_close(
        screened.values[:, screened.measured], everything.values[:, screened.measured], atol=2e-5, rtol=1e-4
    )
    into = tv.discover(model, contrast(2, pairs=True), **arguments, method=tv.ExactEdges(into=("m2", "a1.kv0<k>")))
    assert {into.graph.readers[r] for r in into.graph.edges[into.measured, 2].tolist()} == {"m2", "a1.kv0<k>"}
    with pytest.raises(UnknownName, match="a1.h1<q>"):
        tv.discover(model, contrast(2, pairs=True), **arguments, method=tv.ExactEdges(into=("a1.h1<k>",)))


def test_a_killed_discovery_continues_and_another_one_is_refused(tiny_model, tmp_path, monkeypatch):
    from tv_lens.circuits import discovery
    from tv_lens.errors import RunMismatch

    model, arguments = tiny_model("llama"), given("vector at the last token")
    monkeypatch.setattr(discovery, "ROWS_AT_ONCE", 200)  # two prompts a shard
    measured, calls = discovery.measured_effects, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*args, **kwargs)

    monkeypatch.setattr(discovery, "measured_effects", killed)
    with pytest.raises(KeyboardInterrupt):
        tv.discover(model, contrast(4), **arguments, folder=tmp_path / "run")
    again = tv.discover(model, contrast(4), **arguments, folder=tmp_path / "run")
    assert len(calls) == 3  # one shard, the killed one, and the killed one again
    assert torch.equal(again.values, tv.discover(model, contrast(4), **arguments).values)
    with pytest.raises(RunMismatch, match="contrast"):
        tv.discover(model, contrast(4, seed=5), **arguments, folder=tmp_path / "run")


def test_acdc_keeps_what_is_missed_and_its_circuit_does_what_it_says(tiny_model):
    model = tiny_model("llama")
    found = tv.discover(model, contrast(3), **given("vector at the last token"), method=tv.ACDC(0.03))
    circuit, about = found.above(0.03), found.provenance["acdc"]
    assert len(circuit) == about["kept"] and len(circuit.prune()) == about["effective"] <= about["kept"] < len(
        found.graph
    )
    left = run_circuits(passes(model, "vector at the last token"), circuit.mask[None]).mean()
    assert about["metric_left"] == pytest.approx(float(left), abs=1e-4)
    none = tv.discover(model, contrast(3), **given("vector at the last token"), method=tv.ACDC(1e9))
    assert none.provenance["acdc"]["kept"] == 0
    assert none.provenance["acdc"]["metric_left"] == pytest.approx(float(none.corrupted.mean()), abs=1e-4)


def test_against_another_vector_only_the_difference_counts(tiny_model):
    model, same = tiny_model("llama"), tv.Replace("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="nothing to explain"):
        tv.discover(model, contrast(), source=same, against=same)
    other = tv.Replace("resid_post[0]@-1", vector(5))
    ab = tv.discover(model, contrast(), source=same, against=other)
    assert torch.allclose(ab.gap, tv.discover(model, contrast(), source=same).clean - ab.corrupted, atol=1e-5)
    with pytest.raises(InvalidArgument, match="acts at the source's site"):
        tv.discover(model, contrast(), source=same, against=tv.Replace("resid_post[1]@-1", vector(5)))


def test_real_prompts_get_places_by_their_spans(smollm2):
    task = tv.task("present-past")
    pairs = task.pairs(shots=2, n=2, seed=0).uniform(smollm2)
    made = tv.circuits.contrast.contrast_of(smollm2, pairs, None)
    labels = {
        fold: [p.label for p in tv.circuits.contrast.positions_for(made, None, fold)]
        for fold in ("all", "spans", "kinds", "sum")
    }
    assert (labels["sum"] == ["all"] and labels["spans"][:3] == ["x0", "sep0", "y0"]) or "prefix" in labels["spans"][0]
    assert "x" in labels["kinds"] and "sep" in labels["kinds"] and "query" in labels["kinds"]
    assert len(labels["all"]) == int(made.clean.lengths[0]) == len(set(labels["all"]))


# ---- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused_in_words(tiny_model):
    model, source = tiny_model("llama"), tv.Replace("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="not a method"):
        tv.discover(model, contrast(), source=source, method=tv.EAP)
    with pytest.raises(UnknownName, match="inputs"):
        tv.EAPIG(where="input")
    with pytest.raises(UnknownName, match="run"):
        tv.EAP(gradient_at="a")
    with pytest.raises(InvalidArgument, match="threshold"):
        tv.ACDC(float("nan"))
    with pytest.raises(InvalidArgument, match="something is attached"), model.intervene(tv.Zero("z[0].h1")):
        tv.discover(model, contrast(), source=source)
    with pytest.raises(InvalidArgument, match="mixes the prompts"):
        tv.discover(model, contrast(), source=tv.Mean("resid_post[0]@-1"))
    with pytest.raises(InvalidArgument, match="at one position"):
        tv.discover(model, contrast(), source=tv.Replace("resid_post[0]", vector()))
    with pytest.raises(UnknownName, match="spans"):
        tv.discover(model, contrast(pairs=True), pos="span")


def test_a_source_that_never_reaches_the_target_is_refused(tiny_model):
    model = tiny_model("llama")
    late, early = tv.Replace("resid_post[1]@-1", vector()), tv.Projection("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="never reaches the target"):
        tv.discover(model, contrast(), source=late, target=early)
    with pytest.raises(InvalidArgument, match="no such position"):
        tv.discover(
            model,
            contrast(),
            source=tv.Replace("resid_post[0]@4", vector()),
            target=tv.Projection("resid_post[1]@2", vector()),
        )


def test_runs_without_a_gap_are_refused(tiny_model):
    same = replace(contrast(), corrupted=contrast().clean)
    with pytest.raises(InvalidArgument, match="do not differ on average"):
        tv.discover(tiny_model("llama"), same)


def test_prompts_of_unequal_structure_are_refused_where_positions_matter(tiny_model):
    model = tiny_model("llama")
    ragged = tv.TokenBatch.from_lists([[5, 6, 7, 8], [5, 6, 7]])
    twin = tv.TokenBatch.from_lists([[9, 6, 7, 8], [9, 6, 7]])
    with pytest.raises(MisalignedPrompts, match="differ in structure"):
        tv.discover(model, tv.Contrast(ragged, twin, answers(2, 0)))
    with pytest.raises(MisalignedPrompts, match="do not line up"):
        tv.Contrast(ragged, tv.TokenBatch.from_lists([[9, 6, 7], [9, 6, 7]]), answers(2, 0))
    with pytest.raises(PositionError):
        tv.discover(model, tv.Contrast(ragged, ragged, answers(2, 0)), source=tv.Replace("resid_post[0]@-9", vector()))
    at_last = tv.discover(
        model, tv.Contrast(ragged, ragged, answers(2, 0)), source=tv.Replace("resid_post[0]@-1", vector())
    )
    alone = tv.TokenBatch.from_lists([[5, 6, 7]])
    one = tv.discover(
        model, tv.Contrast(alone, alone, answers(2, 0).select([1])), source=tv.Replace("resid_post[0]@-1", vector())
    )
    torch.testing.assert_close(at_last.values[1:], one.values, atol=2e-5, rtol=1e-4)  # lengths do not mix


def test_prompts_alone_and_pairs_with_a_source_say_too_little_or_too_much(tiny_model):
    import tiny_characters

    model = tiny_characters.model("llama")
    texts = tv.Prompts.from_texts(["abc"], [" d"], foils=[" e"])
    with pytest.raises(InvalidArgument, match="Prompts alone"):
        tv.discover(model, texts)
    pairs = tv.PromptPairs.from_texts(["abc"], ["abd"], [" d"], foils=[" e"])
    with pytest.raises(InvalidArgument, match="second difference"):
        tv.discover(model, pairs, source=tv.Replace("resid_post[0]@-1", vector()))


def test_nothing_stays_on_the_model(tiny_model):
    model = tiny_model("gpt2")
    asking = [parameter.requires_grad for parameter in model.tl.parameters()]
    before = model.run(tokens(2, 5, 0))
    tv.discover(model, contrast(2), **given("vector at the last token"), method=tv.EAP(recheck=3))
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
