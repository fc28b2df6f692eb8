"""Edges against other ways to get them: TransformerLens's own attribution, hooks written by hand, a linear model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

sys.path.insert(0, str(Path(__file__).parents[1]))
import tv_lens as tv
from circuit_cases import answers, contrast, passes, tokens
from tv_lens.circuits.contrast_passes import make_passes
from tv_lens.circuits.exact import measured_effects


def name_of(node) -> str:
    """TransformerLens's node as the field writes it."""
    return {
        "embed": "input",
        "attn_head_out": f"a{node.layer}.h{node.head}",
        "mlp_out": f"m{node.layer}",
        "logits": "logits",
        "mlp_in": f"m{node.layer}",
        "q_input": f"a{node.layer}.h{node.head}<q>",
        "k_input": f"a{node.layer}.h{node.head}<k>",
        "v_input": f"a{node.layer}.h{node.head}<v>",
    }[node.kind]


def peers_scores(model, pair: tv.circuits.Contrast) -> list[dict[str, float]]:
    """TransformerLens's edge scores of each pair, its positions summed."""
    found = []
    for a, b, right, wrong in zip(pair.clean.ids, pair.corrupted.ids, pair.answers.correct, pair.answers.wrong):
        result = attribution_patch(
            model.tl,
            a[None],
            b[None],
            lambda logits: logits[0, -1, right] - logits[0, -1, wrong],
            EdgeAttributionConfig(granularity="edge"),
        )
        sums: dict[str, float] = {}
        for (writer, reader), score in result.edge_scores.items():
            name = f"{name_of(writer)}->{name_of(reader)}"
            sums[name] = sums.get(name, 0.0) + float(score)
        found.append(sums)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_EAP_is_transformer_lenss_edge_attribution_with_its_positions_summed(tiny_model, family):
    model, pair = tiny_model(family), contrast(2, pairs=True)
    ours = tv.discover(
        model, pair, method=tv.circuits.EAP(gradient_at="corrupted", recheck=0), pos="all"
    ).at_any_position()
    names = ours.graph.names()
    for example, peer in enumerate(peers_scores(model, pair)):
        assert set(peer) == set(names)
        theirs = torch.tensor([peer[name] for name in names])
        torch.testing.assert_close(
            ours.values[example], theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()) + 1e-7
        )


# ---- one edge by hooks written by hand ----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_an_edges_effect_is_that_of_hooks_written_by_hand(tiny_model, family):
    """TransformerLens splits the stream by head; the one reader's copy gets the writer's difference added."""
    model = tiny_model(family)
    made = passes(model, "pairs", n=1)
    graph, pair = made.graph, made.contrast
    edges = torch.randperm(len(graph), generator=torch.Generator().manual_seed(2))[:30]
    found = measured_effects(made, edges)[0]
    kv = "h" if model.shape.n_kv_heads == model.shape.n_heads else "kv"
    wrote_clean, wrote_corrupted = (contributions(model, side.ids) for side in (pair.clean, pair.corrupted))
    clean = tv.metrics.logit_diff(model.run(pair.clean), pair.answers)
    for edge, ours in zip(edges.tolist(), found):
        place, w, r = graph.edges[edge].tolist()
        writer, reader, pos = graph.writers[w], graph.readers[r], graph.positions[place].members[0]
        change = wrote_corrupted[writer][0, pos] - wrote_clean[writer][0, pos]
        logits = with_changed_input(model, pair.clean.ids, reader, kv, pos, change)
        torch.testing.assert_close(ours, (clean - tv.metrics.logit_diff(logits, pair.answers))[0], atol=2e-5, rtol=1e-3)


def contributions(model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every writer wrote, from TransformerLens's cache and its own W_O."""
    with torch.no_grad():
        _, cache = model.tl.run_with_cache(ids)
    found = {"input": cache["blocks.0.hook_resid_pre"]}
    for layer, block in enumerate(model.tl.blocks):
        found[f"m{layer}"] = cache[f"blocks.{layer}.hook_mlp_out"]
        z = cache[f"blocks.{layer}.attn.hook_z"]
        z = z if z.ndim == 4 else z.unflatten(-1, (model.shape.n_heads, -1))
        for head in range(model.shape.n_heads):
            found[f"a{layer}.h{head}"] = z[:, :, head] @ block.attn.W_O[head].detach()
    return found


def with_changed_input(model, ids, reader: str, kv: str, pos: int, change: torch.Tensor) -> torch.Tensor:
    """The last logits with `change` added to what one reader alone sees."""
    if reader == "logits":
        hook, head = f"blocks.{model.n_layers - 1}.hook_resid_post", None
    elif reader.startswith("m"):
        hook, head = f"blocks.{reader[1:]}.hook_mlp_in", None
    else:
        layer, rest = reader[1:].split(".")
        head, part = rest.removesuffix(">").split("<")
        hook, head = f"blocks.{layer}.attn.hook_{part}_input", int(head.removeprefix(kv).removeprefix("h"))

    def add(x, hook):
        x = x.clone()
        x[(0, pos) if head is None else (0, pos, head)] += change
        return x

    model.tl.set_use_split_qkv_input(True)
    model.tl.set_use_hook_mlp_in(True)
    try:
        with torch.no_grad():
            return model.tl.run_with_hooks(ids, fwd_hooks=[(hook, add)])[:, -1]
    finally:
        model.tl.set_use_split_qkv_input(False)
        model.tl.set_use_hook_mlp_in(False)


# ---- a linear model ------------------------------------------------------------------------------------------


def linear_model(seed: int = 0) -> tv.HookedModel:
    """A linear GPT-2: no queries or keys, an identity for the MLP's activation, norms that only scale."""
    torch.manual_seed(seed)
    model = hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=60,
            n_embd=16,
            n_layer=3,
            n_head=2,
            n_positions=16,
            activation_function="linear",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            layer_norm_epsilon=1e8,
        )
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".ln_" in name and name.endswith("weight"):
                weight.fill_(1e4)  # against the root of the epsilon
            elif "c_attn.weight" in name:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
                weight[:, :32] = 0  # queries and keys: every token attends alike
            elif weight.ndim == 2:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return tv.load(model, name="linear")


@pytest.mark.parametrize(
    "method",
    [
        tv.circuits.EAP(recheck=0),
        tv.circuits.EAP(gradient_at="corrupted", recheck=0),
        tv.circuits.EAPIG(3, recheck=0),
        tv.circuits.EAPIG(2, where="activations", recheck=0),
    ],
    ids=repr,
)
def test_on_a_linear_model_every_estimate_is_the_exact_effect(method):
    model = linear_model()
    a, b = tokens(3, 5, 0), tokens(3, 5, 1)
    pair = tv.circuits.Contrast(
        tv.tasks.TokenBatch(a.ids % 60, a.mask), tv.tasks.TokenBatch(b.ids % 60, b.mask), small_answers()
    )
    readers = tv.circuits.Graph(model.shape).readers
    bending = ("<q>", "<k>")  # nothing is written to these: the registry would refuse to, since attention cannot change
    exact = tv.discover(
        model, pair, pos="all", method=tv.circuits.ExactEdges(into=tuple(r for r in readers if r[-3:] not in bending))
    )
    estimate, some = tv.discover(model, pair, method=method, pos="all"), exact.measured
    others = exact.values.isnan().all(0)
    assert exact.values[:, some].abs().max() > 0.05 and float(estimate.values[:, others].abs().max()) < 1e-6
    size = float(exact.values[:, some].abs().max())
    torch.testing.assert_close(estimate.values[:, some], exact.values[:, some], atol=2e-5 * size + 2e-6, rtol=1e-3)
    assert (
        float((exact.values[:, exact.graph.edges[:, 2] == exact.graph.end_reader].sum(1) - exact.gap).abs().max())
        < 1e-4
    )


def small_answers() -> tv.metrics.Answers:
    drawn = answers(3, 2)
    return tv.metrics.Answers(drawn.correct % 30, drawn.wrong % 30 + 30)


def test_on_a_nonlinear_model_they_differ(tiny_model):
    """The comparison above can fail."""
    made = make_passes(tiny_model("gpt2"), contrast(3, pairs=True), tv.circuits.CircuitQuestion(pos="all"))
    edges = torch.arange(0, len(made.graph), 9)
    exact, guess = measured_effects(made, edges), tv.circuits.EAP().estimate(made)[:, edges]
    assert float((exact - guess).abs().max()) > 0.02 * float(exact.abs().max())
