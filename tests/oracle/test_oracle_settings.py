"""Process-wide settings of torch reach no result: every verb gives under each what it gives without, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv

TASK, OTHER = tiny_characters.pairings(2)
METHOD = tv.methods.ResidualMean(layer=1, shots=3, contexts=4)
DIRECTIONS = torch.randn(2, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
HEADS = tv.sites("z", layer=(0, 1), pos=-1)
QUICK = ("run with edits", "capture", "score", "patch", "discover EAP")
SLOW = ("discover ACDC", "discover EAPIG")
SITES = ("resid_post[1]", "z[1]", "pattern[1]", "final_norm")


@contextmanager
def dtype(default: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(default)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device(default: str) -> Iterator[None]:
    torch.set_default_device(default)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], object]] = {
    "default float64": lambda: dtype(torch.float64),
    "default bfloat16": lambda: dtype(torch.bfloat16),
    "default device meta": lambda: device("meta"),
    "default float16": lambda: dtype(torch.float16),
    "within a device": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no gradients": torch.no_grad,
}


def batch() -> tv.tasks.TokenBatch:
    return tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8, 9], [9, 8, 7]])


def pairs() -> tv.tasks.PromptPairs:
    return TASK.pairs(shots=2, n=3)


def scores(model: tv.HookedModel, method: object) -> tv.circuits.EdgeScores:
    return tv.discover(model, TASK.pairs(shots=2, n=2), method=method, progress=False)


def by_site(model: tv.HookedModel) -> list[torch.Tensor]:
    found = model.capture(batch(), SITES)
    return [found[site] for site in SITES]


def projected(model: tv.HookedModel) -> torch.Tensor:
    edits = [tv.Project("resid_post[0]", DIRECTIONS), tv.Mean("z[1].h2@-1"), tv.Resample("mlp_out[1]@-1")]
    return model.run(batch(), edits)


VERBS: dict[str, Callable[[tv.HookedModel], object]] = {
    "run": lambda model: model.run(batch(), logits="all"),
    "run with edits": projected,
    "capture": by_site,
    "residual_stream": lambda model: model.residual_stream(batch()),
    "score": lambda model: tv.score(model, pairs().clean, progress=False).log_prob,
    "patch": lambda model: tv.patch(model, pairs(), HEADS, over=("layer", "head"), progress=False),
    "patch by passes": lambda model: tv.patch(
        model, pairs(), HEADS, over=("layer",), engine="passes", metric=tv.metrics.kl, progress=False
    ),
    "node_effects": lambda model: tv.node_effects(model, pairs(), progress=False),
    "path_effects": lambda model: tv.path_effects(
        model, pairs(), senders=["a0.h1"], receivers=["a1.h2"], progress=False
    ),
    "extract": lambda model: tv.extract(model, TASK, method=METHOD, progress=False).direction,
    "function vector": lambda model: (
        tv.extract(
            model,
            TASK,
            method=tv.methods.FunctionVector(layer=1, heads=2, shots=2, contexts=3, prompts=2),
            progress=False,
        ).direction
    ),
    "random_like": lambda model: tv.TaskVector(DIRECTIONS[0], "resid_post[1]@-1", task="t").random_like(0).direction,
    "evaluate": lambda model: tv.evaluate(
        model, tv.extract(model, TASK, method=METHOD, progress=False), TASK, n=3, shots=2, other=OTHER, progress=False
    ),
    "decodability": lambda model: (
        tv.decodability(model, tiny_characters.telling(2), shots=(0, 2), n=8, k=3, progress=False).sweep
    ),
    "discover exact": lambda model: scores(model, tv.circuits.ExactEdges()),
    "discover EAP": lambda model: scores(model, tv.circuits.EAP(recheck=3)),
    "discover EAPIG": lambda model: scores(model, tv.circuits.EAPIG(2, where="activations", recheck=0)),
    "discover ACDC": lambda model: scores(model, tv.circuits.ACDC(0.05)),
    "faithfulness": lambda model: tv.circuits.faithfulness(
        model, scores(model, tv.circuits.EAP(recheck=0)).top(5), pairs(), progress=False
    ),
}


def arrays(result: object) -> list[np.ndarray]:
    """The numbers of a result, with the dtype that they have."""
    parts = result if isinstance(result, list) else [result]
    found = [part.values if isinstance(part, (tv.Sweep, tv.circuits.EdgeScores)) else part for part in parts]
    return [part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in found]


@pytest.fixture(scope="module")
def model() -> tv.HookedModel:
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def plain(model) -> dict[str, list[np.ndarray]]:
    return {}


def combinations() -> list:
    """Every verb under three settings, and a few under the others; the rest of the others is slow."""
    return [
        pytest.param(setting, verb, marks=[] if (i < 3 and verb not in SLOW) or verb in QUICK else pytest.mark.slow)
        for i, setting in enumerate(SETTINGS)
        for verb in VERBS
    ]


@pytest.mark.parametrize(("setting", "verb"), combinations())
def test_no_setting_reaches_a_result(model, plain, setting, verb):
    if verb not in plain:
        plain[verb] = arrays(VERBS[verb](model))
    with ExitStack() as stack:
        stack.enter_context(SETTINGS[setting]())
        result = VERBS[verb](model)
    for got, want in zip(arrays(result), plain[verb], strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting != "no gradients"])
def test_no_setting_reaches_what_is_loaded(setting, tmp_path):
    """A folder, a model in memory and a network of the laboratory are the same models under every setting."""
    tiny.hugging_face_model("qwen3").save_pretrained(tmp_path)
    tiny_characters.tokenizer().save_pretrained(tmp_path)
    config = tv.lab.NetworkConfig(dim=2, points=3, n_layers=1, n_heads=2, d_model=8)
    in_memory = tiny.hugging_face_model("gpt_neox")
    x = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    want = tv.load(tmp_path), tv.load(tiny.hugging_face_model("gpt_neox")), tv.lab.build_network(config)
    with SETTINGS[setting]():
        got = tv.load(tmp_path), tv.load(in_memory), tv.lab.build_network(config)
    for one, other in zip(got[:2], want[:2]):
        assert one.fingerprint == other.fingerprint and one.dtype == torch.float32 and one.device.type == "cpu"
        torch.testing.assert_close(one.run(batch(), logits="all"), other.run(batch(), logits="all"), rtol=0, atol=0)
    one, other = (tv.lab.network.predictions(each, x, x[..., 0]) for each in (got[2], want[2]))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
