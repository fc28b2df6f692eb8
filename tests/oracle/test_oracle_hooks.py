"""Twins of the registry: the same readings and edits by plain TransformerLens hooks and by plain PyTorch hooks.

The oracles share no code with the library: their own table of hook names and axes, loops over rows, positions and
heads, and module paths of the untouched Hugging Face model. Numbers agree to 2e-6 of the largest logit: both sides
do the same float32 sums, but products of other widths (one position against all, a head's part against the whole) and
resid_mid's detour through attn_out round in another order, a few units in the last place (1.2e-7) for each layer.
"""

from __future__ import annotations

from functools import cache, reduce

import pytest
import torch

import tiny
import tv_lens as tv
from tv_lens.site import Site

ROWS = [[5, 9, 11, 4, 60, 8], [7, 3, 90], [80, 41, 2, 77]]  # three lengths, so that "last" differs from row to row
LENGTHS = [len(row) for row in ROWS]
WIDTH = max(LENGTHS)
IDS = torch.tensor([row + [0] * (WIDTH - len(row)) for row in ROWS])
LAYER = 1

# component: TransformerLens's canonical name of the hook of layer 1 (the library uses the aliases),
# the axis of its positions, the axis of its heads
TABLE = {
    "embed": ("embed.hook_out", 1, None),
    "resid_pre": ("blocks.1.hook_in", 1, None),
    "q": ("blocks.1.attn.q.hook_out", 1, 2),
    "k": ("blocks.1.attn.k.hook_out", 1, 2),
    "v": ("blocks.1.attn.v.hook_out", 1, 2),
    "scores": ("blocks.1.attn.hook_attn_scores", 2, 1),
    "pattern": ("blocks.1.attn.hook_pattern", 2, 1),
    "z": ("blocks.1.attn.hook_z", 1, 2),
    "result": ("blocks.1.attn.hook_result", 1, 2),
    "attn_out": ("blocks.1.hook_attn_out", 1, None),  # after the norm behind attention where there is one
    "mlp_post": ("blocks.1.mlp.hook_post", 1, None),
    "mlp_out": ("blocks.1.hook_mlp_out", 1, None),
    "resid_post": ("blocks.1.hook_out", 1, None),
    "final_norm": ("ln_final.hook_out", 1, None),
}
DISCARDED = {"gptj": {"scores", "pattern", "result"}, "opt": {"scores", "pattern", "result"}}
ABSENT = {"gptj": {"scores", "result"}, "opt": {"scores", "result"}}
THOROUGH = {"gpt2", "llama", "gemma2"}  # every selection of every component; on the others one of each


@pytest.fixture
def model(tiny_model, family):
    return tiny_model(family)


def close(ours, oracle):
    scale = 2e-6 * float(oracle.abs().clamp(max=1e4).max())
    return ours.shape == oracle.shape and torch.allclose(
        ours.clamp(min=-1e4), oracle.clamp(min=-1e4), rtol=0, atol=scale
    )


def last(logits):
    return torch.stack([logits[i, n - 1] for i, n in enumerate(LENGTHS)])


def selections(component, family):
    """(head, pos) pairs, pos None for all positions."""
    whole = [(None, None), (None, -1), (None, (0, -2))]
    heads = [(1, None), (1, -1), (0, (-1, 1))] if TABLE[component][2] is not None else []
    chosen = whole + heads
    return chosen if family in THOROUGH else chosen[-2:-1]


def columns(pos, row):
    if pos is None:
        return range(WIDTH)
    return [p if p >= 0 else LENGTHS[row] + p for p in ([pos] if isinstance(pos, int) else pos)]


# ---- plain TransformerLens hooks -------------------------------------------------------------------------------------


def with_hook(model, component, function):
    """The logits at each row's last token of a pass with one plain hook, which gets the tensor to write into."""
    name = TABLE[component][0]

    def hook_function(x, hook):
        x = x.clone()
        function(x)
        return x

    model.tl.set_use_attn_result(component == "result")
    try:
        with torch.no_grad():
            return last(model.tl.run_with_hooks(IDS, fwd_hooks=[(name, hook_function)]))
    finally:
        model.tl.set_use_attn_result(False)


def cells(component, head, pos, row):
    """Index tuples of the vectors that a selection names in one row, one per position and head."""
    _, pos_axis, head_axis = TABLE[component]
    heads = [None] if head_axis is None else [head] if head is not None else range(HEADS_OF[component])
    for column in columns(pos, row):
        for h in heads:
            index = {0: row, pos_axis: column, **({} if h is None else {head_axis: h})}
            yield tuple(index[axis] for axis in sorted(index)), column, h


HEADS_OF: dict[str, int] = {}


@pytest.fixture(autouse=True)
def count_heads(family):
    config = tiny.FAMILIES[family]() if family else None
    kv = getattr(config, "num_key_value_heads", None) or 4
    HEADS_OF.update({"q": 4, "k": kv, "v": kv, "scores": 4, "pattern": 4, "z": 4, "result": 4})


def site_of(component, head, pos):
    return Site(component, None if component in ("embed", "final_norm") else LAYER, head, pos)


def readable(family):
    return [c for c in TABLE if c not in ABSENT.get(family, ())]


def writable(family):
    return [c for c in TABLE if c not in DISCARDED.get(family, ())]


def test_captures_are_what_plain_hooks_see(model, family):
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    for component in readable(family):
        seen = []
        with_hook(model, component, lambda x: seen.append(x.clone()))
        for head, pos in selections(component, family):
            ours = model.capture(batch, site_of(component, head, pos))[site_of(component, head, pos)]
            for row in range(len(ROWS)):
                for at, column, h in cells(component, head, pos, row):
                    if column >= LENGTHS[row]:
                        continue
                    mine = ours[row]
                    if component in ("scores", "pattern") and pos is None and head is None:
                        mine = mine[h, column]  # a whole pattern keeps its heads first
                    else:
                        mine = mine if isinstance(pos, int) else mine[list(columns(pos, row)).index(column)]
                        mine = mine[h] if h is not None and head is None else mine
                    assert close(mine, seen[0][at]), (component, head, pos, row, column)


def edits_of(component, head, pos, width):
    """Our intervention, and what it does to one vector of the selection (its row, and all rows' vectors there)."""
    generator = torch.Generator().manual_seed(len(component) * 7 + (0 if head is None else head + 1))
    vector = torch.randn(width, generator=generator)
    site = site_of(component, head, pos)
    unit = vector / vector.norm()
    mean_allowed = isinstance(pos, int)  # prompts of other lengths share only positions counted from an end
    partners = tv.Resample(site, seed=4).partners(len(ROWS))
    yield tv.Add(site, vector, scale=0.5), lambda x, row, others: x + 0.5 * vector
    yield tv.Zero(site), lambda x, row, others: x * 0
    yield tv.Replace(site, vector.abs()), lambda x, row, others: vector.abs()
    yield tv.Project(site, vector), lambda x, row, others: x - (x @ unit) * unit
    half = torch.arange(width) < width // 2
    yield tv.Project(site, torch.eye(width)[half] * 3, keep=True), lambda x, row, others: x * half
    yield tv.Zero(site).then(tv.Add(site, vector)), lambda x, row, others: vector
    if mean_allowed and component not in ("scores", "pattern"):
        yield tv.Mean(site), lambda x, row, others: (sum(others) - x) / (len(others) - 1)
        yield tv.Resample(site, seed=4), lambda x, row, others: others[partners[row]]


@pytest.mark.parametrize("component", TABLE)
def test_interventions_are_what_plain_hooks_do(model, family, component):
    if component not in writable(family):
        return  # the library refuses to write there: tests/model/test_registry.py, R9
    batch, width = tv.tasks.TokenBatch.from_lists(ROWS), {}
    with_hook(model, component, lambda x: width.setdefault("last", x.shape[-1]))
    for number, (head, pos) in enumerate(selections(component, family)):
        kinds = list(edits_of(component, head, pos, width["last"]))
        every = family in THOROUGH and pos == -1 and (head is not None or TABLE[component][2] is None)
        chosen = kinds if every else [kinds[(number + len(component)) % len(kinds)]]
        for ours, change in chosen:

            def write(x, head=head, pos=pos, change=change):
                before = x.clone()
                for row in range(len(ROWS)):
                    for (at, _column, _h), *rest in zip(
                        *(cells(component, head, pos, r) for r in [row, *range(len(ROWS))])
                    ):
                        seen = slice(None) if component != "scores" else before[at] > -1e30  # the mask is no score
                        vector = before[at] if component != "scores" else before[at].where(seen, torch.tensor(0.0))
                        x[at][..., seen] = change(vector, row, [before[other[0]] for other in rest])[seen]

            assert close(model.run(batch, ours), with_hook(model, component, write)), (ours, head, pos)


# ---- plain PyTorch, on the Hugging Face model that was never bridged -------------------------------------------------

# layers, attention's module, the MLP's, attention's output projection; what leaves the first two goes to the stream
PATHS = {
    "gpt2": ("transformer.h", "attn", "mlp", "attn.c_proj"),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp", "attention.dense"),
    "gptj": ("transformer.h", "attn", "mlp", "attn.out_proj"),
    "opt": ("model.decoder.layers", "self_attn", "fc2", "self_attn.out_proj"),
    "phi": ("model.layers", "self_attn", "mlp", "self_attn.dense"),
    "gemma2": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj"),
    "gemma3": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj"),
    "olmo2": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj"),
} | dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), ("model.layers", "self_attn", "mlp", "self_attn.o_proj"))


@cache
def untouched(family):
    return tiny.hugging_face_model(family)


def part(module, path):
    return reduce(getattr, path.split("."), module)


def layer_of(family, layer=LAYER):
    return part(untouched(family), PATHS[family][0])[layer]


def plain_pass(family, module, function, before=False):
    """The untouched model's logits at each row's last token, with what leaves (or enters) a module changed."""

    def leaves(module, arguments, out):
        tensor = out[0] if isinstance(out, tuple) else out
        new = function(tensor.reshape(IDS.shape[0], IDS.shape[1], -1)).reshape(tensor.shape)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    def enters(module, arguments):
        return (function(arguments[0]), *arguments[1:])

    handle = module.register_forward_pre_hook(enters) if before else module.register_forward_hook(leaves)
    try:
        with torch.no_grad():
            return last(untouched(family)(IDS, use_cache=False).logits)
    finally:
        handle.remove()


def at_last(x, change):
    x = x.clone()
    for row, n in enumerate(LENGTHS):
        x[row, n - 1] = change(x[row, n - 1])
    return x


def test_runs_are_those_of_the_untouched_model(model, family):
    with torch.no_grad():
        expected = untouched(family)(IDS, use_cache=False).logits
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    assert close(model.run(batch), last(expected))
    assert close(model.run(batch, logits="all"), expected)


def test_the_stream_and_what_is_added_to_it_are_the_untouched_models(model, family):
    """Reading, adding and zeroing at resid_pre, resid_post, attn_out and mlp_out, and one head's z."""
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    vector = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    layer, (_, attention, mlp, projection) = layer_of(family), PATHS[family]
    places = {
        "resid_post": (layer, False),
        "attn_out": (part(layer, attention), False),
        "mlp_out": (part(layer, mlp), False),
        "resid_pre": (layer, True),
    }
    for component, (module, before) in places.items():
        seen, site = [], Site(component, LAYER, pos=-1)

        def look(x, seen=seen):
            seen.append(x.clone())
            return x

        plain_pass(family, module, look, before)
        mine = model.capture(batch, [site, site.at(None)])
        for row, n in enumerate(LENGTHS):
            assert close(mine[site.at(None)][row, :n], seen[0][row, :n]), component
            assert torch.equal(mine[site][row], mine[site.at(None)][row, n - 1])
        added = plain_pass(family, module, lambda x: at_last(x, lambda v: v + 2 * vector), before)
        assert close(model.run(batch, tv.Add(site, vector, scale=2.0)), added), component
        zeroed = plain_pass(family, module, lambda x: x * 0, before)
        assert close(model.run(batch, tv.Zero(site.at(None))), zeroed), component

    def without_head_2(x):
        x = x.clone()
        x[:, :, 16:24] = 0
        return x

    zeroed = plain_pass(family, part(layer, projection), without_head_2, before=True)
    assert close(model.run(batch, tv.Zero(Site("z", LAYER, head=2))), zeroed)


def rest_of_layer(family, layer, mid):
    """What the MLP's half of a layer adds to the stream between the halves, by the untouched model's own modules."""
    if family == "gpt2":
        return layer.mlp(layer.ln_2(mid))
    if family == "opt":
        return layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(mid))))
    if family in ("gemma2", "gemma3"):
        return layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(mid)))
    if family == "olmo2":
        return layer.post_feedforward_layernorm(layer.mlp(mid))
    return layer.mlp(layer.post_attention_layernorm(mid))


SEQUENTIAL = [family for family in PATHS if family not in ("gpt_neox", "gptj", "phi")]


@pytest.mark.parametrize("family", SEQUENTIAL)
@pytest.mark.parametrize("name", ["add at the last token", "zero everywhere", "replace at two positions"])
def test_resid_mid_is_written_to_the_mlp_and_to_the_skip(tiny_model, family, name):
    """The oracle computes the second half of the layer from the edited stream and hands that on as its output."""
    model, batch, layer = tiny_model(family), tv.tasks.TokenBatch.from_lists(ROWS), layer_of(family)
    vector = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(1))

    def at_two(x):
        x = x.clone()
        for row, n in enumerate(LENGTHS):
            x[row, 0] = x[row, n - 2] = vector
        return x

    ours, change = {
        "add at the last token": (
            tv.Add(Site("resid_mid", LAYER, pos=-1), vector),
            lambda x: at_last(x, lambda v: v + vector),
        ),
        "zero everywhere": (tv.Zero(Site("resid_mid", LAYER)), lambda x: x * 0),
        "replace at two positions": (tv.Replace(Site("resid_mid", LAYER, pos=(0, -2)), vector), at_two),
    }[name]
    entered, added = [], []
    handles = [
        layer.register_forward_pre_hook(lambda m, a: entered.append(a[0].clone())),
        part(layer, PATHS[family][1]).register_forward_hook(
            lambda m, a, out: added.append((out[0] if isinstance(out, tuple) else out).clone())
        ),
    ]

    def second_half_again(out):
        mid = change(entered[0] + added[0])
        return mid + rest_of_layer(family, layer, mid)

    try:
        expected = plain_pass(family, layer, second_half_again)
    finally:
        for handle in handles:
            handle.remove()
    assert close(model.run(batch, ours), expected)


@pytest.mark.parametrize("family", SEQUENTIAL)
@pytest.mark.parametrize("layer", range(tiny.LAYERS))
def test_a_fully_replaced_resid_mid_gives_the_sources_logits(tiny_model, family, layer):
    """Where plain TransformerLens gives something else: its write does not reach the skip connection."""
    model, source = tiny_model(family), (IDS + 31) % tiny.VOCAB
    with torch.no_grad():
        expected = last(untouched(family)(source, use_cache=False).logits)
        mid = model.tl.run_with_cache(source)[1][f"blocks.{layer}.hook_resid_mid"]
        theirs = last(model.tl.run_with_hooks(IDS, fwd_hooks=[(f"blocks.{layer}.hook_resid_mid", lambda x, hook: mid)]))
    ours = model.run(tv.tasks.TokenBatch.from_lists(ROWS), tv.Replace(Site("resid_mid", layer), mid))
    assert close(ours, expected)
    assert not close(theirs, expected), "TransformerLens writes it right now: the detour can go"
