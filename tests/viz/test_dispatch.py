"""`plot` by type, and what importing the figures loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tv_lens
from tv_lens.errors import InvalidArgument
from tv_lens.viz import plot

SOURCE = list(tv_lens.__path__)


def test_what_has_no_picture_is_an_error():
    with pytest.raises(InvalidArgument) as raised:
        plot(3)
    assert (
        "got:     int" in str(raised.value)
        and "RepresentationMap" in str(raised.value)
        and "Sweep" in str(raised.value)
    )


def test_importing_viz_loads_no_drawing_library():
    code = "import sys, tv_lens.viz; heavy = ('plotly', 'matplotlib', 'circuitsvis', 'sklearn', 'umap'); "
    code += "print([name for name in heavy if name in sys.modules])"
    # TransformerLens itself may import any of them, so the package is looked at alone.
    alone = f"import types, sys; sys.modules['tv_lens'] = m = types.ModuleType('tv_lens'); m.__path__ = {SOURCE!r}; "
    out = subprocess.run([sys.executable, "-c", alone + code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
