"""Labels and indices: what a sweep selects, and what the message names where it cannot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from toy_sweeps import make
from tv_lens.errors import EmptySelection, PositionError, UnknownName
from tv_lens.results.selection import indices, places, require_axis


def test_sel_by_label_list_slice_and_token():
    sweep = make()
    assert sweep.sel(layer=2).axes == ("pos",)
    assert sweep.sel(layer=[0, 3]).values["layer"].values.tolist() == [0, 3]
    assert sweep.sel(layer=slice(1, 2)).values["layer"].values.tolist() == [1, 2]
    assert sweep.sel(token=":").values["pos"].values.tolist() == [1, 5]
    assert sweep.sel(layer=1, pos=0).mean().ndim == 0
    assert sweep.sel(layer=np.int64(1)).axes == ("pos",)


def test_isel_counts_from_the_end_and_keeps_the_example_axis():
    sweep = make()
    assert int(sweep.isel(layer=-1).values["layer"]) == 3
    one = sweep.isel(example=3)
    assert one.n == 1
    assert float(one.clean[0]) == float(sweep.clean[3])
    assert sweep.isel(example=np.arange(20) < 5).n == 5


def test_selection_errors_name_what_there_is():
    sweep = make()
    with pytest.raises(UnknownName) as raised:
        sweep.sel(layer=9)
    assert str(raised.value) == (
        "Axis 'layer' has no label 9.\n"
        "  got:     9\n"
        "  allowed: 0, 1, 2, 3\n"
        "  do:      the nearest is 3; isel(layer=-1) is the last"
    )
    with pytest.raises(UnknownName, match="did you mean 'layer'"):
        sweep.sel(layers=1)
    with pytest.raises(UnknownName, match="No axis is called 'head'"):
        sweep.isel(head=1)
    with pytest.raises(UnknownName, match="Axis 'token' has no label ' g'"):
        sweep.sel(token=" g")
    with pytest.raises(PositionError, match="no such place"):
        sweep.isel(pos=6)
    with pytest.raises(EmptySelection):
        sweep.sel(layer=[])
    with pytest.raises(UnknownName):
        sweep.sel(layer=True)  # True == 1, but it is no layer


def test_indices_of_numbers_lists_masks_and_slices():
    assert indices("pos", -1, 4).ndim == 0 and int(indices("pos", -1, 4)) == -1
    assert indices("pos", [0, 2], 4).tolist() == [0, 2]
    assert indices("pos", np.array([True, False, True]), 3).tolist() == [0, 2]
    assert indices("pos", slice(-2, None), 4).tolist() == [2, 3]
    with pytest.raises(PositionError) as caught:
        indices("pos", [0, 4], 4)
    assert str(caught.value) == "Axis 'pos' has no such place.\n  got:     [0, 4]\n  allowed: 0 to 3"
    with pytest.raises(EmptySelection) as empty:
        indices("pos", slice(4, 9), 4)
    assert str(empty.value) == ("Nothing is selected along 'pos'.\n  got:     slice(4, 9, None)\n  allowed: 4 places")


def test_places_of_labels():
    index = pd.Index([0.0, 0.1, 0.3])
    assert places("scale", 0.1 + 1e-12, index) == 1, "floats need not be equal to the last bit"
    assert places("scale", [0.3, 0.0], index).tolist() == [2, 0]
    assert places("scale", slice(0.1, 0.3), index) == slice(1, 3, None)
    words = pd.Index(["b", "a", "b"])
    assert places("token", ["b"], words).tolist() == [0, 2]
    with pytest.raises(UnknownName, match="Axis 'token' has no label 'c'"):
        places("token", slice("c", None), words)


def test_a_long_index_is_shown_by_its_ends_and_a_long_list_of_names_is_cut():
    with pytest.raises(UnknownName) as caught:
        places("layer", 99, pd.Index(range(30)))
    assert caught.value.allowed == "0 to 29"
    with pytest.raises(UnknownName) as caught:
        places("token", "zzz", pd.Index([f"t{i}" for i in range(43)]))
    assert caught.value.allowed.endswith("t39, and 3 more") and caught.value.do is None


def test_an_axis_that_is_required_is_named():
    require_axis("layer", ("layer", "pos"))
    with pytest.raises(UnknownName, match="did you mean 'layer'"):
        require_axis("layr", ("layer", "pos"))
