"""The host reads the device equally often however many layers a circuit spans (`tests/synchronisations.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import transformers as hf

import tiny
import tv_lens as tv
from circuit_cases import contrast, vector
from synchronisations import Machine


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("_local_scalar_dense", lambda x: bool((x > 0).any())),
        ("cpu", lambda x: x.cpu()),
        ("to", lambda x: x.to("cpu")),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: x.nonzero()),
        ("index by a mask", lambda x: x[x > 0]),
        ("copy_", lambda x: torch.zeros(3).copy_(x)),
        ("_unique2", lambda x: x.unique()),
    ],
)
def test_a_read_of_the_device_is_counted_once_and_of_the_host_never(name, read):
    machine, host = Machine(), torch.arange(3.0)
    with machine:
        on_device = host.to(torch.device("cpu", 0))
        waits, _ = machine.during(lambda: read(on_device * 2))
        none, _ = machine.during(lambda: read(host * 2))
    assert [operation for operation, _ in waits.elements()] == [name] and not none


def test_what_follows_from_the_device_is_on_it_and_what_was_brought_back_is_not():
    machine, host = Machine(), torch.arange(3.0)
    with machine:
        on_device = host.to(torch.device("cpu", 0))
        made = torch.zeros(3, device=on_device.device)
        view, back = (made + on_device)[1:], on_device.cpu()
        assert [machine.has(x) for x in (host, on_device, made, view, back, back + host)] == [
            *(False, True, True, True),
            *(False, False),
        ]
        assert not machine.mixed
        _ = on_device + host
    assert sum(machine.mixed.values()) == 1


VERBS: dict[str, Callable[[tv.HookedModel], object]] = {
    "EAP": lambda model: _discover(model, tv.circuits.EAP(recheck=0)),
    "EAPIG": lambda model: _discover(model, tv.circuits.EAPIG(3, recheck=0)),
    "ExactEdges": lambda model: tv.discover(
        model, contrast(2), source=tv.Replace("resid_post[0]@-1", vector()), progress=False
    ),
    "faithfulness": lambda model: _curve(model),
}


def _discover(model: tv.HookedModel, method: object) -> tv.circuits.EdgeScores:
    return tv.discover(model, contrast(2, pairs=True), method=method, pos="all", progress=False)


def _curve(model: tv.HookedModel) -> tv.Sweep:
    graph = _discover(model, tv.circuits.EAP(recheck=0))
    return tv.circuits.faithfulness(model, graph, contrast(2, pairs=True), sizes=[20, 50], n_random=1, progress=False)


def _counted(layers: int, verb: Callable[[tv.HookedModel], object]) -> tuple[Counter[tuple[str, str]], Machine]:
    """The waits of a verb on a model of so many layers, after it has run once."""
    config = hf.LlamaConfig(**{**tiny.FAMILIES["llama"]().to_dict(), "num_hidden_layers": layers})
    torch.manual_seed(0)
    model, machine = tv.load(hf.LlamaForCausalLM(config).eval(), name=f"{layers} layers"), Machine()
    machine.holds(model.tl)
    with machine:
        verb(model)
        machine.uploads.clear()
        waits, _ = machine.during(lambda: verb(model))
    return waits, machine


@pytest.mark.parametrize("verb", VERBS)
def test_the_host_waits_as_often_for_many_layers_as_for_few(verb):
    """No `.item()`, `.cpu()`, `nonzero` or boolean index in a loop over layers; and no operation mixes both sides."""
    (few, machine), (many, deeper) = _counted(3, VERBS[verb]), _counted(6, VERBS[verb])
    assert few and not machine.mixed and not deeper.mixed
    ours = [Counter({k: n for k, n in each.items() if k[1].startswith("circuits/")}) for each in (few, many)]
    assert ours[0] == ours[1]
    if verb != "ExactEdges":  # whose rows are another engine's
        assert few == many
        assert {k: n for k, n in deeper.uploads.items() if n > 2 * machine.uploads[k]} == {}
