"""What importing the library brings along: its names, and nothing heavy until one of them is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tv_lens as tv
from tv_lens.errors import RenamedError

HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "xarray",
    "transformers",
    "transformer_lens",
    "plotly",
    "sklearn",
    "scipy",
    "jaxtyping",
}


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh Python has imported after running some code."""
    code += "\nimport sys; sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(ran.stderr.split())


# What stands at the top. A new name is a decision: at most 40 fit on a page; what a paper adds lives one level down.
AT_THE_TOP = """
    circuits errors experiments lab methods metrics rows tasks
    load task sites patch extract evaluate decodability discover node_effects path_effects vector_sweep
    representation_map score plot report survey emergence
    HookedModel Site Sweep Task TaskVector Circuit RunFolder
    Intervention Add Mean Project Replace Resample Zero
""".split()


@pytest.mark.parametrize("code", ["import tv_lens", "import tv_lens\ndir(tv_lens)", "from tv_lens import errors"])
def test_the_import_is_light(code):
    found = modules_after(code)
    assert "tv_lens" in found and not found & HEAVY


def test_a_name_is_imported_when_it_is_first_used():
    assert "torch" not in modules_after("import tv_lens\ntv_lens.Site")
    assert "torch" in modules_after("import tv_lens\ntv_lens.patch")


def test_the_names_at_the_top_are_these():
    assert sorted(tv.__all__) == sorted(AT_THE_TOP) and len(AT_THE_TOP) <= 40


def test_a_name_that_has_moved_says_where_it_lives():
    for room, names in tv._MOVED.items():
        for name in names.split():
            assert name in dir(getattr(tv, room)), (room, name)
            with pytest.raises(RenamedError, match=f"use tv.{room}.{name}"):
                getattr(tv, name)


def test_completion_sees_every_public_name_and_none_of_the_internal_ones():
    assert dir(tv) == sorted(tv.__all__)
    for name in tv.__all__:
        assert getattr(tv, name) is not None
    for internal in ("storage", "results", "loading", "model", "patching", "renamed", "progress", "lazy_loader"):
        assert internal not in dir(tv)


def test_a_name_that_never_was_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'ptach'; did you mean 'patch'"):
        tv.ptach  # noqa: B018


@pytest.mark.parametrize(
    "arguments, exit_code", [("--help", 0), ("survey --help", 0), ("survey --tsak antonym", 2), ("surve", 2)]
)
def test_help_and_a_mistyped_option_answer_without_the_heavy_libraries(arguments, exit_code):
    code = f"""
import sys
from tv_lens.cli import main
sys.argv = ["tv-lens", *{arguments.split()!r}]
out, error, sys.stdout = sys.stdout, sys.stderr, open("/dev/null", "w")
sys.stderr = sys.stdout
try:
    main()
except SystemExit as exit:
    assert exit.code == {exit_code}, exit.code
sys.stdout, sys.stderr = out, error"""
    assert not modules_after(code) & HEAVY
