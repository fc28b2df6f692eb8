"""The class of methods that score edges: what each of them says of itself."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast, passes, vector
from tv_lens.circuits.method import EdgeMethod

SOURCE = tv.Replace("resid_post[0]@-1", vector())


@pytest.mark.parametrize(
    "method, approximate, taken",
    [
        (tv.circuits.ExactEdges(), False, None),
        (tv.circuits.EAP(), True, "clean"),
        (tv.circuits.EAP(gradient_at="corrupted"), True, "corrupted"),
        (tv.circuits.EAPIG(), True, "path"),
        (tv.circuits.ACDC(0.1), False, None),
    ],
    ids=repr,
)
def test_a_method_says_what_its_scores_are(method, approximate, taken):
    assert isinstance(method, EdgeMethod) and (method.approximate, method.gradient_taken) == (approximate, taken)


def test_only_a_method_that_prunes_has_a_choice_of_its_own():
    mean = torch.tensor([0.3, -0.2, 0.1])
    assert tv.circuits.ACDC(0.2).own_choice(mean).tolist() == [True, True, False]
    assert tv.circuits.EAP().own_choice(mean) is None and tv.circuits.ExactEdges().own_choice(mean) is None


def test_a_method_of_ones_own_needs_no_change_of_the_verb(tiny_model):
    class WriterSizes(EdgeMethod):
        """How much each edge's writer differs between the runs."""

        def score_edges(self, passes, work, *, seed=0):
            (chunk,) = passes.chunks()
            p, w, _ = passes.graph.edges.T
            return passes.difference(chunk).norm(dim=-1)[:, p, w], {"note": seed}

    model = tiny_model("llama")
    found = tv.discover(model, contrast(3), source=SOURCE, method=WriterSizes(), seed=4)
    assert found.method == {"name": "WriterSizes"} and found.provenance["note"] == 4 and not found.approximate
    made = passes(model, "vector at the last token")
    assert found.values.shape == (3, len(made.graph)) and bool((found.values >= 0).all())
