"""Every example in a docstring runs and prints what it says; examples that need the real model are marked to be skipped."""

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
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)


def test_there_are_examples_to_run():
    """The finder sees through the checks that the tests wrap around every function."""
    from tv_lens import metrics, site
    from tv_lens.results import bootstrap

    for module in (bootstrap, metrics, site):
        found = doctest.DocTestFinder(exclude_empty=True).find(module)
        assert sum(len(example.examples) for example in found) > 0, module.__name__
