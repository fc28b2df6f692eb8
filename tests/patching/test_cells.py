"""The cells of a patching sweep: their axes, labels, sites and positions, and the array that they fill."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.patching.cells import Cell, Target, array_of, axes_of, cells_of, positions_of, targets_of
from tv_lens.site import Site
from tv_lens.tasks.tokenized import TokenSpan


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def tokens(model):
    pairs = tv.tasks.PromptPairs.from_texts(["ab>c", "de>f"], ["ab>f", "de>c"], answers=["x", "y"], foils=["y", "x"])
    return pairs.tokenize(model)


def test_the_axes_are_layers_and_positions_or_the_sets():
    assert axes_of(None, tv.sites("z")) == ("layer", "pos")
    assert axes_of(None, {"one": "z[0]"}) == ("set",)
    assert axes_of("head", tv.sites("z")) == ("head",)
    with pytest.raises(UnknownName, match="did you mean 'layer'"):
        axes_of(("layr",), tv.sites("z"))
    for over in (("pos", "span"), ("layer", "layer")):
        with pytest.raises(InvalidArgument, match="must be different"):
            axes_of(over, tv.sites("z"))


def test_targets_are_one_per_head_where_heads_are_swept(model):
    assert len(targets_of(model, tv.sites("z", layer=1), ("layer",))) == 1
    by_head = targets_of(model, tv.sites("z", layer=1), ("layer", "head"))
    assert [target.site.head for target in by_head] == [0, 1, 2, 3]
    named = targets_of(model, {"a": ["z[0].h1", "z[0].h1"], "b": "z[1]"}, ("set",))
    assert [(target.set, str(target.site)) for target in named] == [("a", "z[0].h1"), ("b", "z[1]")]  # once each
    with pytest.raises(EmptySelection, match="No site was named"):
        targets_of(model, [], ("layer",))


def test_cells_are_every_combination_of_labels_in_the_order_of_the_axes(tokens):
    targets = [Target(Site("resid_pre", layer)) for layer in (0, 2)]
    cells = cells_of(tokens, targets, ("layer", "pos"), [1.0])
    assert [tuple(cell.labels.values()) for cell in cells] == [(layer, pos) for layer in (0, 2) for pos in range(4)]
    assert cells[5].sites == (Site("resid_pre", 2, pos=1),)
    scaled = cells_of(tokens, targets, ("layer", "scale"), [0.5, 2.0])
    assert [(cell.labels["layer"], cell.scale) for cell in scaled] == [(0, 0.5), (0, 2.0), (2, 0.5), (2, 2.0)]


def test_what_no_axis_names_is_patched_together_and_a_hole_in_the_grid_is_refused(tokens):
    targets = [Target(Site("z", layer, head)) for layer in (0, 1) for head in (0, 3)]
    (first, second) = cells_of(tokens, targets, ("layer",), [1.0])
    assert first.sites == (Site("z", 0, 0), Site("z", 0, 3)) and second.labels == {"layer": 1}
    with pytest.raises(InvalidArgument) as caught:
        cells_of(tokens, targets[:3], ("layer", "head"), [1.0])
    assert caught.value.got == "3 of 4 cells"
    with pytest.raises(InvalidArgument, match=r"embed has no layer to sweep over"):
        cells_of(tokens, [Target(Site("embed"))], ("layer",), [1.0])


def test_positions_count_from_the_first_token_of_the_prompt():
    spans = [TokenSpan("x", 0, 0, 2), TokenSpan("sep", 0, 2, 3)]
    assert positions_of(Cell({"span": "x0"}, ()), Site("z", 0), spans, 5) == (0, 1)
    assert positions_of(Cell({}, ()), Site("z", 0), spans, 3) == (0, 1, 2)
    assert positions_of(Cell({}, ()), Site("z", 0, pos=-1), spans, 5) == (4,)
    assert positions_of(Cell({}, ()), Site("z", 0, pos=(1, -2)), spans, 5) == (1, 3)


def test_the_array_has_each_value_in_its_cell(tokens):
    cells = cells_of(tokens, [Target(Site("resid_pre", layer)) for layer in (0, 2)], ("layer", "pos"), [1.0])
    values = np.arange(16.0).reshape(2, 8)
    array = array_of(values, cells, ("layer", "pos"), tokens)
    assert array.dims == ("example", "layer", "pos") and float(array.sel(example=1, layer=2, pos=3)) == 15.0
    assert array.token.values.tolist()[2] == ">" and not np.isnan(array.values).any()
