"""Addresses: how they print and parse, what they refuse, which numbers two of them share."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, SiteError, UnknownName
from tv_lens.site import COMPONENTS, ModelShape, Site, Sites, component, sites

SHAPE = ModelShape(n_layers=3, n_heads=4, n_kv_heads=2, d_model=32, d_head=8, d_mlp=64, d_vocab=96, n_ctx=16)
LAYERED = [name for name, entry in COMPONENTS.items() if entry.layered]
WITH_HEADS = [name for name, entry in COMPONENTS.items() if entry.head_axis]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_holds_the_components_of_the_field():
    assert list(COMPONENTS) == [
        "embed",
        "resid_pre",
        "q",
        "k",
        "v",
        "scores",
        "pattern",
        "z",
        "result",
        "attn_out",
        "resid_mid",
        "mlp_post",
        "mlp_out",
        "resid_post",
        "final_norm",
    ]
    assert len({entry.hook for entry in COMPONENTS.values()}) == len(COMPONENTS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_names_its_axes(name):
    entry = component(name)
    assert entry.name == name and entry.axes[0] == "batch" and entry.position_axis in entry.axes
    assert (entry.head_axis is None) or entry.head_axis in entry.axes
    assert entry.layered == (name not in ("embed", "final_norm"))


def test_only_the_per_head_result_needs_a_flag():
    assert {name: entry.flag for name, entry in COMPONENTS.items() if entry.flag} == {"result": "use_attn_result"}


def test_an_unknown_component_names_the_nearest():
    with pytest.raises(UnknownName) as caught:
        component("resid_pots")
    assert str(caught.value).endswith("did you mean 'resid_post' or 'resid_pre' or 'resid_mid'?")


# ---- printing and parsing --------------------------------------------------------------------------------------------

WRITTEN = {
    "resid_post[20]@-1": Site("resid_post", 20, pos=-1),
    "z[5].h3@-1": Site("z", 5, head=3, pos=-1),
    "z[5].h3": Site("z", 5, head=3),
    "z[5]": Site("z", 5),
    "embed": Site("embed"),
    "embed@0": Site("embed", pos=0),
    "final_norm@-1": Site("final_norm", pos=-1),
    "pattern[0].h11@2,-1": Site("pattern", 0, head=11, pos=(2, -1)),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_site_prints_as_it_is_parsed(text):
    assert str(WRITTEN[text]) == repr(WRITTEN[text]) == text
    assert Site.parse(text) == WRITTEN[text]


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("pos", [None, 0, -2, (0, 3, -1)])
@pytest.mark.parametrize("head", [None, 1])
def test_every_site_survives_being_written_down(name, head, pos):
    head = head if name in WITH_HEADS else None
    site = Site(name, 7 if name in LAYERED else None, head, pos)
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize("name", COMPONENTS)
def test_transformer_lens_names_are_addresses_too(name):
    site = Site(name, 12 if name in LAYERED else None)
    assert Site.parse(site.hook_name) == site


def test_the_hook_names_are_those_of_transformer_lens():
    names = {site: Site.parse(site).hook_name for site in ("z[5].h3@-1", "resid_mid[0]", "embed", "final_norm")}
    assert names == {
        "z[5].h3@-1": "blocks.5.attn.hook_z",
        "resid_mid[0]": "blocks.0.hook_resid_mid",
        "embed": "embed.hook_out",
        "final_norm": "ln_final.hook_out",
    }


def test_parsing_a_site_gives_it_back():
    site = Site("z", 1)
    assert Site.parse(site) is site


@pytest.mark.parametrize(
    "text", ["z[5]h3", "z(5)", "", "z[-1]", "blocks.5.attn.hook_zz", "z[5].h3@", "z[5]@1,", "z[5] "]
)
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(InvalidArgument) as caught:
        Site.parse(text)
    assert str(caught.value) == (
        "This is not an address.\n"
        f"  got:     {text!r}\n"
        "  allowed: component[layer].h<head>@<position>, such as resid_post[20]@-1 or z[5].h3\n"
        "  do:      or a TransformerLens name, such as blocks.5.attn.hook_z"
    )


def test_parsing_an_unknown_component_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'mlp_post'"):
        Site.parse("mlp_pots[3]")


# ---- what a site refuses ---------------------------------------------------------------------------------------------


def test_a_layer_left_out_is_refused_with_the_way_out():
    with pytest.raises(SiteError) as caught:
        Site("z")
    assert str(caught.value) == (
        "z lives in a layer, and none was named.\n"
        "  got:     Site('z')\n"
        "  do:      Site('z', layer=0), or tv.sites('z') for every layer."
    )


def test_a_layer_too_much_is_refused():
    with pytest.raises(SiteError, match="embed is not part of a layer"):
        Site("embed", layer=0)


def test_a_head_where_there_is_none_is_refused():
    with pytest.raises(SiteError) as caught:
        Site("resid_post", 0, head=2)
    assert caught.value.allowed == "heads of q, k, v, scores, pattern, z, result"


def test_a_site_at_no_position_is_refused():
    with pytest.raises(EmptySelection, match="names no position"):
        Site("resid_post", 0, pos=())
    with pytest.raises(EmptySelection, match="names no position"):
        Site("resid_post", 0, pos=[])


def test_positions_given_as_a_list_are_a_tuple():
    assert Site("z", 0, pos=[1, 2]) == Site("z", 0, pos=(1, 2))
    assert hash(Site("z", 0, pos=[1, 2])) == hash(Site("z", 0, pos=(1, 2)))


def test_numbers_from_numpy_make_the_same_site():
    site = Site("z", np.arange(3)[2], head=np.int64(1), pos=np.int64(-1))
    assert site == Site("z", 2, head=1, pos=-1) and str(site) == "z[2].h1@-1"
    assert all(type(n) is int for n in (site.layer, site.head, site.pos))


@pytest.mark.parametrize(
    "site, said",
    [
        (Site("z", 3), "The model has no layer 3.\n  got:     z[3]\n  allowed: layers 0 to 2"),
        (Site("z", -1), "The model has no layer -1.\n  got:     z[-1]\n  allowed: layers 0 to 2"),
        (Site("z", 0, head=4), "z has no head 4.\n  got:     z[0].h4\n  allowed: heads 0 to 3"),
        (Site("v", 0, head=2), "v has no key-value head 2.\n  got:     v[0].h2\n  allowed: key-value heads 0 to 1"),
        (Site("z", 0, head=-1), "z has no head -1.\n  got:     z[0].h-1\n  allowed: heads 0 to 3"),
    ],
)
def test_a_site_that_the_model_does_not_have_is_refused_with_the_range(site, said):
    with pytest.raises(SiteError) as caught:
        site.check(SHAPE)
    assert str(caught.value) == said


@pytest.mark.parametrize("pos", [16, -17, (0, 16)])
def test_a_position_beyond_the_context_is_refused(pos):
    with pytest.raises(PositionError) as caught:
        Site("z", 0, pos=pos).check(SHAPE)
    assert caught.value.allowed == "-16 to 15"


def test_a_site_that_fits_is_given_back():
    site = Site("v", 2, head=1, pos=(-16, 15))
    assert site.check(SHAPE) is site


# ---- parts of a site -------------------------------------------------------------------------------------------------


def test_at_moves_and_tensor_forgets_the_selection():
    site = Site("z", 5, head=3, pos=-1)
    assert site.at(2) == Site("z", 5, head=3, pos=2)
    assert site.at(None) == Site("z", 5, head=3)
    assert site.tensor == Site("z", 5)
    assert (site.positions, site.at((1, 2)).positions, site.at(None).positions) == ((-1,), (1, 2), ())


def test_two_sites_overlap_where_they_share_a_number():
    selections = [(h, p) for h in (None, 0, 1) for p in (None, 0, 1, (0, 1))]
    held = {}
    for h, p in selections:  # the numbers of a 2-position, 2-head tensor that each one means
        heads = (0, 1) if h is None else (h,)
        positions = (0, 1) if p is None else (p,) if isinstance(p, int) else p
        held[h, p] = set(itertools.product(heads, positions))
    for a, b in itertools.product(selections, repeat=2):
        one, other = Site("z", 0, *a), Site("z", 0, *b)
        assert one.overlaps(other) == other.overlaps(one) == bool(held[a] & held[b]), (one, other)


def test_sites_of_other_layers_or_components_do_not_overlap():
    assert not Site("z", 0).overlaps(Site("z", 1))
    assert not Site("q", 0).overlaps(Site("z", 0))
    assert Site("embed").overlaps(Site("embed", pos=3))


# ---- selections ------------------------------------------------------------------------------------------------------


def test_a_selection_is_every_layer_unless_named():
    assert sites("resid_post").expand(SHAPE) == [Site("resid_post", layer) for layer in range(3)]
    assert sites("resid_post", layer=1).expand(SHAPE) == [Site("resid_post", 1)]
    assert sites("z", layer=range(1, 3), head=[0, 2], pos=-1).expand(SHAPE) == [
        Site("z", layer, head, -1) for layer in (1, 2) for head in (0, 2)
    ]
    assert sites("embed", "final_norm").expand(SHAPE) == [Site("embed"), Site("final_norm")]


def test_a_selection_by_head_counts_key_value_heads_where_there_are_fewer():
    by_head = sites("z", "v", "mlp_out", layer=0).expand(SHAPE, by_head=True)
    assert by_head == [Site("z", 0, h) for h in range(4)] + [Site("v", 0, h) for h in range(2)] + [Site("mlp_out", 0)]


def test_a_selection_refuses_what_the_model_does_not_have():
    with pytest.raises(SiteError, match="layers 0 to 2"):
        sites("z", layer=[0, 3]).expand(SHAPE)
    with pytest.raises(UnknownName, match="resid_post"):
        sites("resid_pots")


def test_an_empty_selection_is_refused():
    with pytest.raises(EmptySelection, match="No component was named"):
        sites()
    with pytest.raises(EmptySelection, match="holds no site"):
        sites("z", layer=[]).expand(SHAPE)
    with pytest.raises(EmptySelection, match="names no position"):
        sites("z", pos=()).expand(SHAPE)


def test_the_public_names_are_these():
    assert tv.sites is sites and tv.Site is Site and tv.model.Sites is Sites and tv.model.COMPONENTS is COMPONENTS
