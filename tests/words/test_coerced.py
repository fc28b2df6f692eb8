"""Fields that take more than they hold: what they are at run time, and what a type checker sees."""

from __future__ import annotations

import dataclasses
import inspect
from typing import SupportsIndex, get_type_hints

import numpy as np

from tv_lens import site
from tv_lens.coerced import Coerced, default
from tv_lens.site import Site


def test_at_run_time_the_hint_is_what_the_constructor_takes():
    assert Coerced[int | str, int] == int | str and default(3) == 3
    hints = get_type_hints(Site.__init__, vars(site))
    assert hints["layer"] == SupportsIndex | None


def test_the_object_holds_the_second_type_and_the_default_is_plain():
    assert type(Site("z", layer=np.int64(3)).layer) is int and Site("final_norm").layer is None
    assert [field.default for field in dataclasses.fields(Site)][1:] == [None, None, None]
    assert inspect.signature(Site).parameters["pos"].default is None
