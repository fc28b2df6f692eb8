"""Circuits known by construction: the models do their tasks, and exactly the named edges carry them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import tv_lens as tv
from tv_lens.circuits import Graph, Position, truth
from tv_lens.circuits.truth import absolute, relative
from tv_lens.errors import UnknownName
from tv_lens.site import ModelShape

sys.path.insert(0, str(Path(__file__).parents[2] / "oracle"))
from explicit import Explicit

NAMES = [one.__name__ for one in truth.TRUTHS]


def plain_model(name: str) -> Explicit:
    """The same weights, without the library: the bridge takes a Hugging Face model's parts, so one is built anew."""
    kept = []
    module = absolute if hasattr(absolute, name) else relative
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", lambda model, **_: kept.append(Explicit(model)) or _NoModel(model))
        getattr(module, name)(n=2)
    return kept[0]


class _NoModel:
    """Enough of a HookedModel for the construction to go on."""

    def __new__(cls, model):
        return tv.load(model)


@pytest.fixture(scope="module", params=NAMES)
def known(request):
    return getattr(truth, request.param)(n=3), request.param


def runs(found: truth.Truth) -> tuple[torch.Tensor, torch.Tensor, tv.metrics.Answers]:
    """The tokens of the clean and the corrupted run, and the answers."""
    made = found.prompts.tokenize(found.model)
    if isinstance(found.prompts, tv.tasks.PromptPairs):
        return made.clean.tokens.ids, made.corrupted.tokens.ids, made.answers
    return made.tokens.ids, made.tokens.ids, made.answers


def test_the_model_does_its_task_on_every_prompt_and_not_on_its_twin(known):
    found, _ = known
    a, b, answers = runs(found)
    with_source = () if found.source is None else found.source
    logits_a, logits_b = found.model.run(a, with_source), found.model.run(b)
    assert (logits_a.argmax(1) == answers.correct).all()
    assert (tv.metrics.logit_diff(logits_a, answers) > 9).all()
    if found.source is None:
        assert (logits_b.argmax(1) == answers.wrong).all()
    else:
        assert (logits_b.argmax(1) != answers.correct).all()


@pytest.mark.slow
def test_exactly_the_named_edges_carry_the_answer(known):
    """Every edge of the model ablated alone, in both directions, by a transformer written out by hand."""
    found, name = known
    model, (a, b, answers) = plain_model(name), runs(found)
    source = None if found.source is None else found.source.value.double()

    def metric(logits):
        return tv.metrics.logit_diff(logits, answers)

    logits_a, out_a = model.run(a, source=source)
    logits_b, out_b = model.run(b)
    with_source = () if found.source is None else found.source
    torch.testing.assert_close(logits_a.float(), found.model.run(a, with_source), atol=2e-3, rtol=0)
    torch.testing.assert_close(logits_b.float(), found.model.run(b), atol=2e-3, rtol=0)
    gap = (metric(logits_a) - metric(logits_b)).mean()

    edges = model.edges()
    if source is not None:
        readers = [r for layer in range(1, model.layers) for r in model.readers(layer)] + ["logits"]
        late = [e for e in edges if e.split("->")[0][1:].split(".")[0].isdigit() and int(e[1]) >= 1]
        edges = [*late, *(f"source->{reader}" for reader in readers)]
    assert found.edges <= set(edges)
    noising = {e: (metric(logits_a) - metric(model.run(a, out_b, {e}, source, out_a)[0])).abs() / gap for e in edges}
    denoising = {
        e: (metric(model.run(b, out_a, {e}, None, out_b)[0]) - metric(logits_b)).abs() / gap
        for e in edges
        if source is None
    }
    for effects in filter(None, (noising, denoising)):
        assert all(effects[e].min() > 0.4 for e in found.edges), "each of them alone decides every prompt"
        assert all(effects[e].max() < 0.01 for e in edges if e not in found.edges), "no other edge moves any prompt"


def test_the_named_edges_suffice(known):
    """All other edges ablated together leave the answer; the named ones ablated together leave the other run's."""
    found, name = known
    model, (a, b, answers) = plain_model(name), runs(found)
    source = None if found.source is None else found.source.value.double()
    _, out_b = model.run(b)
    readers = [r for layer in range(1, model.layers) for r in model.readers(layer)] + ["logits"]
    edges = set(model.edges()) | ({f"source->{r}" for r in readers} if source is not None else set())
    kept = model.run(a, out_b, edges - found.edges, source)[0]
    dropped = model.run(a, out_b, found.edges, source)[0]
    assert (tv.metrics.logit_diff(kept, answers) > 9).all()
    assert (tv.metrics.logit_diff(dropped, answers) < 0.1).all()


def test_a_mask_holds_the_known_edges_at_every_position(known):
    found, _ = known
    where = (Position("before", (0, 1)), Position("last", (2,)))
    site = None if found.source is None else found.source.site
    graph = Graph(found.model.shape, positions=where if site is None else (Position("last", (-1,)),), source=site)
    mask = found.mask(graph)
    named = {graph.name(int(edge)).split("@")[0] for edge in mask.nonzero()[:, 0]}
    assert named == found.edges and len(mask) == len(graph)
    with pytest.raises(UnknownName, match="lacks an edge"):
        found.mask(Graph(ModelShape(1, 2, 2, 8, 4, 8, 10, 16)))
