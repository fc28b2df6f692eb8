"""Every example in a docstring runs and prints what it says; those that need the real model are skipped."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tv_lens

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
