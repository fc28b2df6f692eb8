"""The laws of the registry, R1 to R10 of the design, on every architecture family.

`tests/oracle/test_oracle_hooks.py` checks the same machinery against plain hooks; `tests/test_architecture.py` keeps
the half of R1 that is about source code.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import pytest
import torch
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tv_lens as tv
from tv_lens.errors import (
    DuplicateSite,
    InvalidArgument,
    MisalignedPrompts,
    ShapeMismatch,
    SiteAbsent,
    SiteError,
    SiteNotReached,
    SiteNotWritable,
    TVLensError,
)
from tv_lens.intervention import Add, Intervention, Mean, Replace, Resample, Zero
from tv_lens.model.editing import Edit
from tv_lens.site import COMPONENTS, Site, Sites

BATCH, POS = 5, 7  # no other axis of the tiny models has these lengths, so a swapped axis shows
TOKENS = (torch.arange(BATCH * POS).reshape(BATCH, POS) * 17 + 3) % tiny.VOCAB
PARALLEL = {"gpt_neox", "gptj", "phi"}  # attention and MLP side by side: no stream between them
ORIGINAL_ATTENTION = {"gptj", "opt"}  # attention runs in the original code: what is written there is discarded


def all_sites(layers=range(tiny.LAYERS)) -> list[Site]:
    return [Site(name, layer) for name, entry in COMPONENTS.items() for layer in (layers if entry.layered else [None])]


def expected_word(family: str, component: str) -> str:
    """What TransformerLens 4.3 lets one do, by its source: written down here, not asked of the registry."""
    if component == "resid_mid" and family in PARALLEL:
        return "absent"
    if family in ORIGINAL_ATTENTION and component in ("result", "scores"):
        return "absent"
    if family in ORIGINAL_ATTENTION and component == "pattern":
        return "read"
    return "write"


def sites_with(family: str, *words: str) -> list[Site]:
    return [site for site in all_sites() if expected_word(family, site.component) in words]


def state_of(bridge) -> dict:
    """Everything that an attachment could leave behind: hooks of both kinds, flags, contexts."""
    return {
        "hooks": {name: len(handles) for name, handles in bridge.list_hooks().items()},
        "torch hooks": sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in bridge.modules()
        ),
        "flags": {name: value for name, value in vars(bridge.cfg).items() if name.startswith("use_")},
        "context": bridge.context_level,
        "training": bridge.training,
        "gradients": torch.is_grad_enabled(),
    }


@dataclass(frozen=True, eq=False, repr=False)
class Call(Intervention):
    """Runs a function while the model runs, and edits nothing."""

    function: object = None

    def edit(self, x):
        self.function(x)
        return x


@dataclass(frozen=True, eq=False, repr=False)
class Noise(Intervention):
    """Adds noise of unit size, where there is a live number."""

    seed: int = 0

    def edit(self, x):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(self.seed))
        return torch.where(x.abs() < 1e30, x + noise, x)


@pytest.fixture
def model(tiny_model, family):
    return tiny_model(family)


@pytest.fixture
def llama(tiny_model):
    return tiny_model("llama")


# ---- R1: only the registry adds hooks or sets flags ------------------------------------------------------------------


def test_R1_every_hook_of_a_run_is_added_by_the_registry(llama, monkeypatch):
    files, original = set(), HookPoint.add_hook

    def spy(self, *args, **kwargs):
        frame = sys._getframe(1)
        while "tv_lens" not in frame.f_globals.get("__name__", "").split(".")[0]:
            frame = frame.f_back
        files.add(frame.f_globals["__name__"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HookPoint, "add_hook", spy)
    with llama.intervene(Zero("z[1]")):
        llama.run(TOKENS)
        llama.capture(TOKENS, "result[0]")
        llama.residual_stream(TOKENS)
    assert files == {"tv_lens.model.registry"}


# ---- R2: what is attached runs, or the call raises -------------------------------------------------------------------


def test_R2_everything_attached_fires_exactly_once_a_pass(model, family):
    reads, edits = sites_with(family, "read", "write"), [Noise(site) for site in sites_with(family, "write")]
    with model.registry.attach("test", edits, reads) as attachment:
        for _ in range(2):
            model.run(TOKENS)
            fired = dict(attachment.fired)
            assert fired == {s: 1 + (expected_word(family, s.component) == "write") for s in reads}
            assert list(attachment.values) != [] and set(attachment.values) == set(reads)


def test_R2_every_writable_site_moves_the_logits(model, family):
    sites = sites_with(family, "write")
    batch = model.tokens(TOKENS[:1].expand(len(sites) + 1, -1))
    edits = [Edit(Noise(site), torch.full((POS,), row), torch.arange(POS)) for row, site in enumerate(sites, start=1)]
    logits, _ = model.forward(batch, edits, logits_at=batch.last[:, None])
    moved = (logits[1:, 0] - logits[0, 0]).abs().amax(-1) / logits[0, 0].std()
    assert {site: float(m) for site, m in zip(sites, moved) if m < 1e-3} == {}


@pytest.fixture
def without_layer_1(llama):
    """The model with a layer that passes the stream on untouched: what is attached there cannot run."""
    with passing_over(llama, 1):
        yield llama


@contextmanager
def passing_over(model, layer):
    object.__setattr__(model.tl.blocks[layer], "forward", lambda hidden_states, *args, **kwargs: hidden_states)
    try:
        yield
    finally:
        object.__delattr__(model.tl.blocks[layer], "forward")


def test_R2_an_edit_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached) as caught:
        without_layer_1.run(TOKENS, [Zero("z[1].h2"), Zero("z[2]"), Zero("mlp_out[1]@-1")])
    assert str(caught.value) == (
        "A forward pass ended without reaching every attached site.\n"
        "  got:     z[1].h2, mlp_out[1]@-1\n"
        "  do:      the pass stopped early, or this architecture skips the site; "
        "print(model.registry) shows which sites it has."
    )


def test_R2_a_read_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached, match=r"z\[1\]"):
        without_layer_1.capture(TOKENS, ["z[0]", "z[1]"])


def test_R2_holds_for_the_contexts_around_a_pass_too(llama):
    with llama.intervene(Zero("z[1]")):
        llama.run(TOKENS)
        with passing_over(llama, 1), pytest.raises(SiteNotReached):
            llama.run(TOKENS, Zero("z[2]"))  # each pass is checked anew: that it ran before does not count


def test_R2_a_written_resid_mid_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached, match=r"resid_mid\[1\]"):
        without_layer_1.run(TOKENS, Zero("resid_mid[1]"))


@pytest.mark.parametrize("outer", ["resid_post[2]", "final_norm", "mlp_out[2]", "resid_mid[2]", "embed"])
def test_R2_a_capture_of_early_layers_runs_on_to_the_edits_around_it(llama, outer):
    with llama.intervene(Zero(outer)):
        found = llama.capture(TOKENS, "resid_post[0]")  # would stop after layer 0
    edited = outer == "embed"
    assert torch.equal(found["resid_post[0]"], llama.capture(TOKENS, "resid_post[0]")["resid_post[0]"]) != edited


def test_R2_hooks_torn_off_by_a_reset_come_back_before_the_next_pass(llama):
    zeroed = llama.run(TOKENS, Zero("resid_post[1]"))
    with llama.intervene(Zero("resid_post[1]")):
        llama.tl.reset_hooks()
        assert torch.equal(llama.run(TOKENS), zeroed)


def test_R2_an_unembedding_that_ignores_the_choice_of_positions_is_noticed(llama, monkeypatch):
    """The last token is chosen by a hook before the unembedding; were it discarded as other edits are in other
    architectures, the first token's logits would stand in its place."""
    clean = llama.run(TOKENS)
    monkeypatch.setattr("tv_lens.model.attachment.gathered", lambda columns, x: x)
    assert torch.allclose(llama.run(TOKENS), clean, atol=1e-5)


# ---- R3: edits are out of place; what was captured cannot change -----------------------------------------------------


def test_R3_a_capture_is_not_changed_by_an_edit_downstream_in_the_same_storage(model):
    """resid_post of a layer and resid_pre of the next are one storage in TransformerLens."""
    before = model.capture(TOKENS, "resid_post[0]")["resid_post[0]"]
    with model.registry.attach("test", [Zero("resid_pre[1]")], [Site("resid_post", 0), Site("resid_pre", 1)]) as a:
        model.run(TOKENS)
    assert torch.equal(a.values[Site("resid_post", 0)], before)
    assert not a.values[Site("resid_pre", 1)].any()


def test_R3_a_capture_is_a_copy(model, family):
    clean = model.run(TOKENS)
    reads = [site for site in sites_with(family, "read", "write") if not site.entry.flag]  # the flag changes rounding

    def spoil(x):
        for value in attachment.values.values():
            value.fill_(1e3)

    spoilers = [Call(name, spoil) for name in ("attn_out[1]", "mlp_out[1]", "final_norm")]  # the stream is still needed
    with model.registry.attach("test", spoilers, reads) as attachment:
        assert torch.equal(model.run(TOKENS), clean)
    for value in model.capture(TOKENS, reads).values():
        value.fill_(1e3)
    assert torch.equal(model.run(TOKENS), clean)


def test_R3_an_edit_does_not_change_what_others_have_seen_at_its_hook(model):
    """TransformerLens caches the tensor, not a copy: an edit in place at the same hook would rewrite the cache."""
    seen = {}
    names = ["blocks.0.attn.hook_z", "blocks.0.mlp.hook_post", "blocks.0.hook_resid_post"]
    with model.tl.hooks(fwd_hooks=[(name, lambda x, hook, name=name: seen.update({name: x})) for name in names]):
        model.run(TOKENS, [Zero(name) for name in names])  # theirs were attached first and run first
    assert list(seen) == names and all(bool(x.any()) for x in seen.values())


def test_R3_an_edit_that_writes_into_its_input_is_refused(llama):
    def spoil(x):
        x.zero_()

    with pytest.raises(InvalidArgument) as caught:
        llama.run(TOKENS, Call("resid_post[0]", spoil))
    assert str(caught.value) == (
        "Call(resid_post[0]) changes its input in place.\n"
        "  do:      return a new tensor, such as x * 0 instead of x.zero_()."
    )


# ---- R4: the model is left as it was found ---------------------------------------------------------------------------


def test_R4_loading_and_probing_leave_a_bridge_as_transformer_lens_made_it(family):
    original = tiny.hugging_face_model(family)
    bridge = build_bridge_from_module(original, type(original).__name__, hf_config=original.config)
    bridge(TOKENS)  # some Hugging Face models add hooks of their own on their first pass
    before = state_of(bridge)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    tv.load(bridge)
    assert state_of(bridge) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_R4_after_every_call_the_hooks_and_flags_are_as_before(model, family):
    before = state_of(model.tl)
    readable, writable = (
        [site for site in sites_with(family, *words) if site.layer in (None, 1)]
        for words in (("read", "write"), ("write",))
    )
    clean = model.run(TOKENS)
    model.run(TOKENS, [Noise(site) for site in writable], logits="all")
    assert state_of(model.tl) == before
    model.capture(TOKENS, readable)
    model.residual_stream(TOKENS)
    with model.intervene(*[Noise(site) for site in writable]):
        during = state_of(model.tl)
        model.run(TOKENS)
        assert state_of(model.tl) == during
        with model.intervene(Zero("embed")):
            pass
        assert state_of(model.tl) == during
    assert during != before and state_of(model.tl) == before
    assert torch.equal(model.run(TOKENS), clean)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
def test_R4_an_exception_inside_a_hook_leaves_the_model_as_before(llama, error, monkeypatch):
    monkeypatch.setattr(
        "tv_lens.model.passes._HELD", WeakKeyDictionary()
    )  # what a full device held is remembered: not by later tests
    before, clean = state_of(llama.tl), llama.run(TOKENS)

    def fail(x):
        raise error()

    for layer in range(tiny.LAYERS):
        edits = [Zero("result[1]"), Zero(f"resid_mid[{layer}]"), Call(f"mlp_out[{layer}]", fail)]
        for call in (llama.run, lambda t, e: open_and_run(llama, t, e)):
            with pytest.raises(error):
                call(TOKENS, edits)
            assert state_of(llama.tl) == before and llama.registry.attached == ()
    # A device that was full once is given smaller batches from then on, and products of other shapes round differently.
    torch.testing.assert_close(llama.run(TOKENS), clean, rtol=0, atol=1e-5 if error is MemoryError else 0)


def open_and_run(model, tokens, edits):
    with model.intervene(*edits):
        model.run(tokens)


def test_R4_an_exception_in_an_inner_context_keeps_the_outer_one(llama):
    zeroed = llama.run(TOKENS, Zero("resid_post[1]"))
    with llama.intervene(Zero("resid_post[1]")):
        during = state_of(llama.tl)["flags"]
        with pytest.raises(ShapeMismatch), llama.intervene(Replace("result[0]", torch.ones(3))):
            llama.run(TOKENS)
        assert [a.who for a in llama.registry.attached] == ["model.intervene"]
        assert state_of(llama.tl)["flags"] == during
        assert torch.equal(llama.run(TOKENS), zeroed)


REFUSED = {
    "no such layer": lambda m: m.run(TOKENS, Zero("z[3]")),
    "no such head": lambda m: m.capture(TOKENS, "v[0].h2"),
    "shape": lambda m: m.run(TOKENS, Replace("z[0]", torch.ones(3))),
    "position": lambda m: m.run(TOKENS, Zero("z[0]@7")),
    "twice": lambda m: m.run(TOKENS, [Zero("z[0]"), Zero("z[0].h1")]),
    "one prompt": lambda m: m.run(TOKENS[:1], Mean("z[0]")),
    "budget": lambda m: m.capture(TOKENS, "z[0]", memory_budget=10),
    "nothing asked": lambda m: m.capture(TOKENS, []),
    "vocabulary": lambda m: m.run(torch.tensor([[1, tiny.VOCAB]])),
    "context": lambda m: m.run(torch.ones(1, tiny.CONTEXT + 1, dtype=torch.long)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_R4_a_refused_call_leaves_the_model_as_before(llama, name):
    before = state_of(llama.tl)
    with pytest.raises(TVLensError):
        REFUSED[name](llama)
    assert state_of(llama.tl) == before and llama.registry.attached == ()


def test_R4_hooks_and_flags_of_somebody_else_stay_and_keep_working(llama):
    seen = []

    def theirs(x, hook):
        seen.append(hook.name)

    llama.tl.add_hook("blocks.1.hook_resid_pre", theirs)
    llama.tl.set_use_attn_result(True)
    try:
        before = state_of(llama.tl)
        assert llama.registry.foreign_hooks() != []
        llama.run(TOKENS, [Zero("resid_pre[1]"), Zero("result[0]")])
        llama.capture(TOKENS, "result[2]")
        assert len(seen) == 2 and state_of(llama.tl) == before and llama.tl.cfg.use_attn_result
    finally:
        llama.tl.reset_hooks()
        llama.tl.set_use_attn_result(False)
    assert llama.registry.foreign_hooks() == []


def test_R4_contexts_left_in_another_order_than_entered_leave_nothing(llama):
    before, clean = state_of(llama.tl), llama.run(TOKENS)
    first, second = llama.intervene(Zero("result[0]")), llama.intervene(Zero("z[1]"))
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(llama.run(TOKENS), (only := llama.run(TOKENS))) and not torch.equal(only, clean)
    second.__exit__(None, None, None)
    assert state_of(llama.tl) == before and torch.equal(llama.run(TOKENS), clean)


def test_R4_transformer_lens_contexts_inside_and_around_ours_stay_whole(llama):
    seen = []

    def theirs(x, hook):
        seen.append(1)

    before = state_of(llama.tl)
    with llama.tl.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", theirs)]):
        with llama.intervene(Zero("z[1]")):
            with llama.tl.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", theirs)]):
                llama.run(TOKENS)
            llama.run(TOKENS)
        llama.run(TOKENS)
    assert len(seen) == 4 and state_of(llama.tl) == before


# ---- R5: results are keyed by Site -----------------------------------------------------------------------------------


def test_R5_results_are_keyed_by_site_however_they_were_asked_for(model, family):
    sites = sites_with(family, "read", "write")
    found = model.capture(TOKENS, sites)
    assert list(found) == sites
    by_name = model.capture(TOKENS, [site.hook_name for site in sites])
    by_text = model.capture(TOKENS, [str(site) for site in sites])
    for site in sites:
        assert torch.equal(found[site], by_name[site.hook_name]) and torch.equal(found[site], by_text[str(site)])


def test_R5_parts_of_one_tensor_are_results_of_their_own(llama):
    wanted = ["z[1]", "z[1].h2", "z[1]@-1", "z[1].h2@0,-1"]
    found = llama.capture(TOKENS, wanted)
    whole = found["z[1]"]
    assert [str(site) for site in found] == wanted
    assert torch.equal(found["z[1].h2"], whole[:, :, 2])
    assert torch.equal(found["z[1]@-1"], whole[:, -1])
    assert torch.equal(found["z[1].h2@0,-1"], whole[:, [0, -1], 2])


# ---- R6: every tensor has the table's axes ---------------------------------------------------------------------------


def lengths(family: str) -> dict[str, int]:
    """The lengths of the axes, from the Hugging Face config alone."""
    config = tiny.FAMILIES[family]()
    heads = config.num_attention_heads
    width = next(
        (w for w in (getattr(config, n, None) for n in ("intermediate_size", "ffn_dim", "n_inner")) if w), None
    )
    return {
        "batch": BATCH,
        "pos": POS,
        "query_pos": POS,
        "key_pos": POS,
        "d_model": config.hidden_size,
        "head": heads,
        "kv_head": getattr(config, "num_key_value_heads", None) or heads,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "d_mlp": width or 4 * config.hidden_size,
    }


def test_R6_every_tensor_has_the_tables_axes(model, family):
    known = lengths(family)
    found = model.capture(TOKENS, sites_with(family, "read", "write"))
    for site, value in found.items():
        assert list(value.shape) == [known[axis] for axis in site.entry.axes], site
        assert value.dtype == torch.float32 and value.device.type == "cpu"


def test_R6_a_selected_head_and_position_drop_their_axes(model, family):
    known, wanted = lengths(family), {}
    for site in sites_with(family, "read", "write"):
        axes = [axis for axis in site.entry.axes if axis not in ("batch", site.entry.position_axis)]
        rest = [known[axis] for axis in axes]
        wanted[site.at(-1)] = [BATCH, *rest]
        wanted[site.at((0, 2, -1))] = [BATCH, 3, *rest]
        if site.entry.head_axis:
            rest = [known[axis] for axis in axes if axis != site.entry.head_axis]
            wanted[Site(site.component, site.layer, head=1)] = [BATCH, POS, *rest]
            wanted[Site(site.component, site.layer, head=1, pos=-1)] = [BATCH, *rest]
    found = model.capture(TOKENS, list(wanted))
    assert {site: list(value.shape) for site, value in found.items()} == wanted


def test_R6_what_was_captured_can_be_put_back_as_it_is(model, family):
    """Reading and writing agree on the axes of every selection, so this is no edit; a swapped axis would be one."""
    batch = model.tokens(TOKENS[:, :4])  # as many positions as heads: here a swapped axis would fit
    clean = model.run(batch)
    wholes = [site for site in sites_with(family, "write") if site.layer in (None, 1)]
    heads = [Site(s.component, s.layer, 1) for s in wholes if s.entry.head_axis]
    spots = [s.at(-1) for s in wholes] + [s.at((2, 0)) for s in heads]
    for chosen in (wholes, heads, spots):
        found = model.capture(batch, chosen)
        edited = model.run(batch, [Replace(site, found[site]) for site in chosen])
        assert torch.allclose(edited, clean, rtol=0, atol=2e-6 * float(clean.abs().max()))


def test_R6_heads_that_do_not_add_up_to_the_stream_keep_their_axes():
    """Models may have head_dim * heads != d_model; the eleven tiny ones do not."""
    import transformers as hf

    config = hf.Qwen3Config(**{**tiny._GROUPED, "head_dim": 12})
    torch.manual_seed(0)
    model = tv.load(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    found = model.capture(TOKENS, ["q[1]", "k[1]", "v[1]", "z[1]", "result[1]"])
    assert [list(value.shape)[2:] for value in found.values()] == [[4, 12], [2, 12], [2, 12], [4, 12], [4, 32]]


# ---- R7: nested contexts compose in entry order; the same site twice is an error -------------------------------------


def test_R7_nested_contexts_compose_in_entry_order(model):
    ones = torch.ones(tiny.D_MODEL)
    replaced = model.run(TOKENS, Replace("resid_post[1]", 2 * ones))
    both = model.run(TOKENS, Replace("resid_post[1]", 3 * ones))
    with model.intervene(Replace("resid_post[1]", 2 * ones)):
        assert torch.equal(model.run(TOKENS), replaced)
        with model.intervene(Add("resid_post[1]", ones)):  # the outer acts first: 2 + 1
            assert torch.equal(model.run(TOKENS), both)
        assert torch.equal(model.run(TOKENS), replaced)
        assert torch.equal(model.run(TOKENS, Add("resid_post[1]", ones)), both)
    with model.intervene(Add("resid_post[1]", ones)):
        with model.intervene(Replace("resid_post[1]", 2 * ones)):  # replaced last: the addition is gone
            assert torch.equal(model.run(TOKENS), replaced)


def test_R7_an_inner_context_upstream_does_not_undo_an_outer_one_downstream(model):
    pinned = model.run(TOKENS, Zero("resid_post[2]"))
    with model.intervene(Zero("resid_post[2]")):
        assert torch.equal(model.run(TOKENS, Noise("resid_pre[0]")), pinned)


def test_R7_a_read_sees_all_edits_outer_and_inner(llama):
    with llama.intervene(Zero("z[0].h1")), llama.intervene(Zero("z[0].h2")):
        found = llama.capture(TOKENS, "z[0]")["z[0]"]
    assert not found[:, :, 1:3].any() and found[:, :, 0].any() and found[:, :, 3].any()


OVERLAPPING = [
    ("z[1]", "z[1]"),
    ("z[1]", "z[1].h2"),
    ("z[1].h2", "z[1]@-1"),
    ("z[1]@1,2", "z[1]@2,3"),
    ("embed", "embed@0"),
    ("resid_mid[0]", "resid_mid[0]@3"),
]


@pytest.mark.parametrize("first, second", OVERLAPPING)
def test_R7_the_same_site_twice_in_one_call_is_an_error(llama, first, second):
    for call in (llama.run, lambda t, e: open_and_run(llama, t, e)):
        with pytest.raises(DuplicateSite) as caught:
            call(TOKENS, [Zero(first), Zero(second)])
        assert str(caught.value) == (
            "Two interventions edit the same site in one call.\n"
            f"  got:     {first} and {second}\n"
            "  do:      stack them on purpose: first.then(second); or nest two model.intervene contexts."
        )


def test_R7_two_spellings_of_one_position_are_the_same_site(llama):
    """Only the prompt tells that position 6 is position -1, so this is found when it runs."""
    llama.run(TOKENS, [Zero("z[1]@5"), Zero("z[1]@-1")])
    with pytest.raises(DuplicateSite, match=r"z\[1\]@6 and z\[1\]@-1"):
        llama.run(TOKENS, [Zero("z[1]@6"), Zero("z[1]@-1")])


@pytest.mark.parametrize(
    "first, second", [("z[1].h1", "z[1].h2"), ("z[1]@0", "z[1]@1"), ("z[0]", "z[1]"), ("q[0]", "k[0]")]
)
def test_R7_edits_of_other_numbers_are_not_the_same_site(llama, first, second):
    together = llama.run(TOKENS, [Zero(first), Zero(second)])
    with llama.intervene(Zero(first)):
        assert torch.equal(llama.run(TOKENS, Zero(second)), together)


def test_R7_stacked_on_purpose_the_same_site_twice_is_allowed(llama):
    ones = torch.ones(tiny.D_MODEL)
    stacked = llama.run(TOKENS, Replace("resid_post[1]", ones).then(Add("resid_post[1]", ones)))
    assert torch.equal(stacked, llama.run(TOKENS, Replace("resid_post[1]", 2 * ones)))


# ---- R8: everybody attaches through it, and it can be printed --------------------------------------------------------


def test_R8_printing_the_registry_shows_who_is_attached_now(llama):
    seen = []
    look = Call("final_norm", lambda x: seen.append(repr(llama.registry)))
    with llama.intervene(look, Zero("z[1].h2@-1")):
        llama.run(TOKENS, Zero("mlp_out[0]"))
        llama.capture(TOKENS, ["embed", "resid_post[2]"])
    head = (
        "LlamaForCausalLM: 3 layers; \n  attached by model.intervene: Call(final_norm), Zero(z[1].h2@-1); reads nothing"
    )
    assert seen[0].startswith(head + "\n  attached by model.run: Zero(mlp_out[0]); reads nothing\n")
    assert seen[1].startswith(head + "\n  attached by model.capture: no edit; reads embed, resid_post[2]\n")
    assert repr(llama.registry).startswith("LlamaForCausalLM: 3 layers; nothing is attached\n")


def test_R8_printing_the_registry_shows_which_sites_the_model_has(model, family):
    lines = repr(model.registry).splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [[name, expected_word(family, name)] for name in COMPONENTS]
    for line, entry in zip(lines, COMPONENTS.values()):
        assert entry.hook in line and entry.meaning in line and f"{entry.axes[1]}" in line


# ---- R9: presence is not enough --------------------------------------------------------------------------------------


def test_R9_the_probe_finds_what_can_be_read_and_written(model, family):
    found = {site: model.registry.support(site).word for site in all_sites()}
    assert found == {site: expected_word(family, site.component) for site in all_sites()}


def test_R9_what_is_marked_as_read_is_discarded_and_what_is_marked_as_write_is_not(model, family):
    """Plain TransformerLens hooks, no code of ours: the verdict holds on every layer, not only on the probed one."""
    generator = torch.Generator().manual_seed(0)
    marked = {site: model.registry.support(site).word for site in all_sites()}
    sites = [s for s, word in marked.items() if word != "absent" and s.component != "resid_mid"]

    def noise(row):
        def hook_function(x, hook):
            out = x.clone()  # noise, since norms and softmax take no notice of one number added everywhere
            out[row] = torch.where(x[row].abs() < 1e30, x[row] + torch.randn(x[row].shape, generator=generator), x[row])
            return out

        return hook_function

    with_flag = family not in ORIGINAL_ATTENTION
    model.tl.set_use_attn_result(with_flag)
    try:
        hooks = [(site.hook_name, noise(row)) for row, site in enumerate(sites, start=1)]
        logits = model.tl.run_with_hooks(TOKENS[:1].expand(len(sites) + 1, -1), fwd_hooks=hooks)
    finally:
        model.tl.set_use_attn_result(False)
    moved = (logits[1:] - logits[0]).abs().amax((1, 2)) > 1e-4
    assert {s: bool(m) for s, m in zip(sites, moved)} == {site: marked[site] == "write" for site in sites}


@pytest.mark.parametrize("family", sorted(ORIGINAL_ATTENTION))
def test_R9_scores_that_are_the_pattern_are_not_offered_as_scores(tiny_model, family):
    model = tiny_model(family)
    _, cache = model.tl.run_with_cache(TOKENS)
    assert torch.equal(cache["blocks.1.attn.hook_attn_scores"], cache["blocks.1.attn.hook_pattern"])
    with pytest.raises(SiteAbsent) as caught:
        model.capture(TOKENS, "scores[1]")
    assert caught.value.do == (
        "the hook holds the pattern here, not the scores (attention is computed by the original code)."
    )


@pytest.mark.parametrize("family", sorted(ORIGINAL_ATTENTION))
def test_R9_a_write_that_would_be_discarded_is_refused(tiny_model, family):
    model, before = tiny_model(family), state_of(tiny_model(family).tl)
    site = Site("pattern", 1, head=2)
    with pytest.raises(SiteNotWritable) as caught:
        model.run(TOKENS, Zero(site))
    assert str(caught.value) == (
        f"An edit at {site} would be discarded by {model.architecture}.\n"
        f"  got:     {site}\n"
        "  do:      the hook can be read, but the model does not use what is written there "
        "(attention is computed by the original code)."
    )
    with pytest.raises(SiteNotWritable), model.intervene(Zero(site)):
        pass
    assert model.capture(TOKENS, site)[site].shape == (BATCH, POS, POS)
    assert state_of(model.tl) == before


@pytest.mark.parametrize("family", sorted(PARALLEL))
def test_R9_an_absent_site_is_refused_with_what_there_is(tiny_model, family):
    model = tiny_model(family)
    for call in (lambda: model.capture(TOKENS, "resid_mid[1]"), lambda: model.run(TOKENS, Zero("resid_mid[1]"))):
        with pytest.raises(SiteAbsent) as caught:
            call()
        present = [name for name in COMPONENTS if expected_word(family, name) != "absent"]
        assert str(caught.value) == (
            f"This {model.architecture} has no resid_mid.\n"
            "  got:     resid_mid[1]\n"
            f"  allowed: {', '.join(present)}\n"
            "  do:      this architecture has no such hook in TransformerLens."
        )


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f not in PARALLEL])
def test_R9_a_write_to_resid_mid_reaches_the_mlp_and_the_skip(tiny_model, family):
    """After a full replacement at one layer the model can know nothing but the replacement."""
    model, other = tiny_model(family), TOKENS.flip(0)
    for layer in range(tiny.LAYERS):
        site = Site("resid_mid", layer)
        source = model.capture(other, [site, Site("resid_post", layer)])
        with model.registry.attach("test", [Replace(site, source[site])], [site, Site("resid_post", layer)]) as a:
            logits = model.run(TOKENS)
        clean = model.run(other)
        assert torch.allclose(logits, clean, rtol=0, atol=2e-6 * float(clean.abs().max())), layer
        for read in a.values:  # what is read there is what was written
            assert torch.allclose(a.values[read], source[read], rtol=0, atol=2e-6 * float(source[read].abs().max()))


def test_R9_resid_mid_composes_with_the_edits_it_is_written_through(llama):
    """resid_mid is written through attn_out; edits of attn_out and resid_pre beside it keep their own meaning."""
    ones = torch.ones(tiny.D_MODEL)
    found = {}

    def keep(name):
        return lambda x: found.__setitem__(name, x.clone())

    edits = [Zero("resid_pre[1]"), Replace("attn_out[1]", 2 * ones), Add("resid_mid[1]", 3 * ones)]
    with llama.registry.attach("test", edits, [Site("resid_mid", 1), Site("attn_out", 1)]) as a:
        llama.run(TOKENS)
    assert torch.allclose(a.values[Site("resid_mid", 1)], (5 * ones).expand(BATCH, POS, -1), atol=1e-6)
    assert torch.equal(a.values[Site("attn_out", 1)], (2 * ones).expand(BATCH, POS, -1))


def test_R9_nested_edits_of_resid_mid_compose_in_entry_order(llama):
    ones = torch.ones(tiny.D_MODEL)
    with llama.intervene(Replace("resid_mid[1]@-1", ones)), llama.intervene(Add("resid_mid[1]@-1", ones)):
        found = llama.capture(TOKENS, "resid_mid[1]@-1")["resid_mid[1]@-1"]
    assert torch.allclose(found, (2 * ones).expand(BATCH, -1), atol=1e-6)


# ---- R10: one lock a model -------------------------------------------------------------------------------------------


def test_R10_a_second_thread_waits_for_the_first_ones_context(llama):
    clean, done, results = llama.run(TOKENS), threading.Event(), []

    def other():
        results.append(llama.run(TOKENS))
        done.set()

    with llama.intervene(Zero("resid_post[2]")):
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert not done.wait(0.3), "it ran inside a context that is not its own"
        assert torch.equal(llama.run(TOKENS)[0], llama.run(TOKENS)[1])  # all prompts alike: the edit is on
    thread.join(10)
    assert done.is_set() and torch.equal(results[0], clean)


def test_R10_threads_that_share_a_model_never_see_each_others_edits(llama):
    edits = [Zero("z[0]"), Zero("mlp_out[1]"), Add("resid_mid[1]", torch.ones(tiny.D_MODEL)), Zero("result[2].h1")]
    alone = [llama.run(TOKENS, edit) for edit in edits]
    streams = [llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"]]
    wrong = []

    def work(edit, expected):
        for _ in range(8):
            if not torch.equal(llama.run(TOKENS, edit), expected):
                wrong.append(edit.label)
            if not torch.equal(llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"], streams[0]):
                wrong.append("capture")

    threads = [threading.Thread(target=work, args=pair) for pair in zip(edits, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_R10_the_lock_is_free_again_after_an_error(llama):
    with pytest.raises(SiteError):
        llama.run(TOKENS, Zero("z[9]"))
    results = []
    thread = threading.Thread(target=lambda: results.append(llama.run(TOKENS)), daemon=True)
    thread.start()
    thread.join(10)
    assert len(results) == 1


# ---- edits placed on rows, and edits across prompts ------------------------------------------------------------------


def test_placed_edits_share_one_pass_as_if_each_had_run_alone(model, family):
    """Row i of the batch carries edit i, each at its own position and head: many interventions, one pass."""
    batch = model.tokens(TOKENS)
    plans = [("resid_post[1]", None, 2), ("z[0]", 1, 6), ("z[0]", 3, 0), ("mlp_out[2]", None, 5), ("q[1]", 2, 3)]
    edits = []
    for row, (name, head, col) in enumerate(plans):
        tensor = Site.parse(name)
        edit = Noise(Site(tensor.component, tensor.layer, head), seed=row)
        edits.append(Edit(edit, torch.tensor([row]), torch.tensor([col])))
    together, _ = model.forward(batch, edits, logits_at=batch.last[:, None])
    clean = model.run(TOKENS)
    for row, edit in enumerate(edits):
        alone = model.run(TOKENS[row : row + 1], Noise(edit.site.at(plans[row][2]), seed=row))
        assert torch.allclose(together[row, 0], alone[0], rtol=0, atol=2e-6 * float(clean.abs().max())), plans[row]


@pytest.mark.parametrize(
    "edit", [Mean("resid_post[0]"), Resample("z[1].h2"), Zero("q[0]").then(Mean("q[0]"))], ids=repr
)
def test_an_edit_across_prompts_of_different_lengths_is_refused(llama, edit):
    """At a position that another prompt does not have there is only padding to take a value from."""
    padded = tv.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    with pytest.raises(MisalignedPrompts) as caught:
        llama.run(padded, edit)
    assert str(caught.value) == (
        f"{edit.label} takes values from prompts of other lengths, which have padding there.\n"
        "  got:     prompts of 2 to 4 tokens\n"
        "  do:      name a position that every prompt has, such as -1, or use prompts of one length."
    )


def test_an_edit_across_prompts_at_a_position_they_all_have_is_fine(llama):
    padded = tv.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    with llama.intervene(Resample("resid_post[0]@-1")):
        found = llama.capture(padded, "resid_post[0]@-1")["resid_post[0]@-1"]
    clean = llama.capture(padded, "resid_post[0]@-1")["resid_post[0]@-1"]
    assert torch.equal(found, clean[[1, 0]])


@pytest.mark.parametrize(
    "edit", [Zero("scores[1]"), Mean("scores[1]"), Zero("scores[1].h2").then(Noise("scores[1].h2"))], ids=repr
)
def test_an_edit_of_the_scores_keeps_the_causal_mask(llama, edit):
    """With zeros in the mask's place a token would attend to what comes after it."""
    other = TOKENS.clone()
    other[:, 4:] = 50
    before = llama.run(TOKENS, edit, logits="all")[:, :4]
    assert bool(before.isfinite().all())
    assert torch.equal(llama.run(other, edit, logits="all")[:, :4], before)
    with llama.intervene(Zero("scores[1]")):
        pattern = llama.capture(TOKENS, "pattern[1]")["pattern[1]"]
    even = torch.tril(torch.ones(POS, POS)) / torch.arange(1, POS + 1)[:, None]
    assert torch.allclose(pattern, even.expand_as(pattern), atol=1e-6)


def test_an_unknown_selection_of_layers_names_the_range(llama):
    with pytest.raises(SiteError, match="layers 0 to 2"):
        llama.capture(TOKENS, Sites(("z",), layers=(0, 7)))
