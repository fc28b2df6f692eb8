"""Every example in a docstring runs and prints what it says; those that need the real model are skipped."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cache

import pytest

import tv_lens
from reference_pages import public_names

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [one.name for one in pkgutil.walk_packages(tv_lens.__path__, "tv_lens.") if not one.name.endswith("__main__")]


@pytest.mark.parametrize("name", ["tv_lens", *MODULES])
def test_the_examples_of_a_module_run(name):
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=report.append)
    assert not runner.summarize(verbose=False).failed, "".join(report)


def test_there_are_examples_to_run():
    """The finder sees through the checks that the tests wrap around every function."""
    from tv_lens import metrics, site
    from tv_lens.results import bootstrap

    for module in (bootstrap, metrics, site):
        doctests = doctest.DocTestFinder(exclude_empty=True).find(module)
        assert sum(len(each.examples) for each in doctests) > 0, module.__name__


@cache
def shown() -> str:
    """Everything that examples which run say and print, in the whole library."""
    texts = []
    for name in ["tv_lens", *MODULES]:
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name):
            texts += [one.source + one.want for one in test.examples if doctest.SKIP not in one.options]
    return "\n".join(texts)


@cache
def without_example() -> set[str]:
    """Public functions and classes of the reference that no example that runs uses or shows."""
    missing = set()
    for written, found in (entry for entries in public_names().values() for entry in entries):
        module, _, name = found.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
        own = any(doctest.SKIP not in one.options for one in examples)
        if not own and not re.search(rf"\b{name}\b", shown()):
            missing.add(written.rpartition(".")[2])
    return missing


# Public names that no running example shows yet: results of long experiments, and their parts. The list only shrinks.
NOT_YET = set(
    """
    ChangePoints Contrast Coupling DiscretePrior EmergenceSize Finetuning Fit Instruction PaperSize Position
    Posterior PosteriorProbe Prediction Reference Span SurfaceAudit TokenSpan UMAP across_models
    circuits_before_after coupling emergence encoding_against_accuracy finetune_layers pack plot_audit
    plot_comparison plot_edge_scores plot_scores plot_surface_audit plot_training plot_universal_heads
    plot_vector with_instruction
    """.split()
)


def test_every_public_name_is_in_an_example_that_runs():
    assert without_example() <= NOT_YET
    assert not NOT_YET - without_example(), "these have an example now: take them off the list"
