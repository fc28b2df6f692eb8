"""Methods as values: to a dictionary and back, and the controls that a method has by default."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

import tiny_characters
import tiny_vectors
import tv_lens as tv
from tv_lens.task_vectors.method import Method
from tv_lens.tasks import ARROW, QA


@dataclass(frozen=True)
class ByHand(Method):
    layer: int = 0

    def extract(self, model, task, *, seed=0, progress=True, folder=None):
        return tiny_vectors.saying("3")

    def fixed(self, layer, template):
        return ByHand(layer)


@pytest.mark.parametrize("template", [None, ARROW, QA])
@pytest.mark.parametrize("kind", [tv.methods.ResidualMean, tv.methods.FunctionVector])
def test_a_method_comes_back_from_its_dictionary(kind, template):
    method = kind(layer=2, shots=3, template=template)
    described = json.loads(json.dumps(method.to_dict()))
    assert described["name"] == kind.__name__ and described["layer"] == 2
    assert kind.from_dict(described) == method
    assert kind.from_dict({**described, "of another version": 1}) == method


def test_a_method_has_no_controls_of_its_own_by_default():
    method, model = ByHand(layer=1), tiny_characters.model("llama")
    assert method.to_dict() == {"name": "ByHand", "layer": 1} and method.alike({"summed_heads": [(0, 1)]}) is method
    vector = tv.extract(model, tiny_vectors.ALWAYS_3, method=method, progress=False)
    assert method.own_controls(model, tiny_vectors.ALWAYS_3, vector, 2) == {}


def test_a_method_without_extract_is_refused():
    with pytest.raises(TypeError, match="abstract method"):
        Method()
