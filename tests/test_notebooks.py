"""The notebooks run from top to bottom; their last cells assert what they claim."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SECONDS_A_CELL = 600
LONG = {"02_causal_sweeps.ipynb", "05_encoding_predicts_performance.ipynb"}  # a minute of processor time each


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_a_notebook_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None), cell.source


def test_a_notebook_uses_public_names_only_and_ends_with_its_claim(notebook):
    trees = [ast.parse(source) for source in code(notebook)]
    imported = {
        ast.unparse(node) for tree in trees for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported == {"import tv_lens as tv"}
    private = [
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    ]
    assert not private
    assert any(isinstance(node, ast.Assert) for node in ast.walk(trees[-1]))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name in LONG else []) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path, smollm2, tmp_path, monkeypatch):
    """In a kernel of its own; `smollm2` skips where the embedded model is not installed, and fills its cache."""
    for name, value in (("OMP_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
