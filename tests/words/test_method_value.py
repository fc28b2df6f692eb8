"""Methods as values: abstract or final, checked in one place, and unknown to the verbs that use them."""

from __future__ import annotations

import ast
import importlib
import inspect
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pytest

import tv_lens as tv
from tv_lens.circuits.method import EdgeMethod
from tv_lens.errors import InvalidArgument, RenamedError
from tv_lens.experiments.regressors.contrasts import LatentContrast
from tv_lens.method_value import MethodValue, takes_method
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.method import Method

ROOT = Path(tv.__file__).parent
# Each verb's class of methods, the modules in which it is used, and its methods.
VERBS = {
    Method: (
        ["task_vectors.extraction", "task_vectors.evaluation", "task_vectors.control_vectors"],
        {"ResidualMean", "FunctionVector"},
    ),
    EdgeMethod: (["circuits.discovery", "circuits.truth.board"], {"ExactEdges", "EAP", "EAPIG", "ACDC"}),
    MapMethod: (["task_vectors.maps", "experiments.language_models.encoding"], {"PCA", "UMAP"}),
    LatentContrast: (["experiments.regressors.circuits"], {"Twin", "Injected"}),
}


for name in tv.__all__:
    getattr(tv, name)  # a lazy name's module, and with it its methods, exists after its first use


def below(base: type) -> set[type]:
    """Every class of the library that derives from a class, directly or not."""
    own = {one for one in base.__subclasses__() if one.__module__.startswith("tv_lens.")}
    return own | {one for each in own for one in below(each)}


def test_every_method_of_the_library_belongs_to_a_verb():
    assert {one for one in MethodValue.__subclasses__() if one.__module__.startswith("tv_lens.")} == set(VERBS)


@pytest.mark.parametrize("base", VERBS, ids=lambda base: base.__name__)
def test_a_class_of_methods_is_abstract_or_final(base):
    assert inspect.isabstract(base) and base.purpose and base.examples
    concrete = {one for one in below(base) if not inspect.isabstract(one)}
    assert {one.__name__ for one in concrete} == VERBS[base][1]
    assert all(not below(one) for one in concrete), "nothing derives from a method that can be used"


@pytest.mark.parametrize("base", VERBS, ids=lambda base: base.__name__)
def test_nothing_is_overridden_twice(base):
    for method in below(base):
        classes = [one for one in method.__mro__ if issubclass(one, MethodValue)]
        for name in {name for one in classes for name, value in vars(one).items() if inspect.isfunction(value)}:
            if name.startswith("__"):
                continue
            defining = [one for one in classes if name in vars(one)]
            written = [one for one in defining if not getattr(vars(one)[name], "__isabstractmethod__", False)]
            assert len(written) <= 2 and len(defining) <= 2, f"{name} of {method.__name__}: {defining}"


@pytest.mark.parametrize("base", VERBS, ids=lambda base: base.__name__)
def test_no_verb_looks_at_the_type_of_a_method(base):
    names = {one.__name__ for one in (base, *below(base))}
    for module in VERBS[base][0]:
        source = inspect.getsource(importlib.import_module(f"tv_lens.{module}"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "type"):
                looked = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                assert not looked & (names | {"method"}), f"{module}: {ast.unparse(node)}"
            if isinstance(node, ast.Compare) and ast.unparse(node.left) in ("method", "method.name", "maps"):
                assert isinstance(node.ops[0], (ast.Is, ast.IsNot)), f"{module}: {ast.unparse(node)}"


def test_the_rule_can_say_no():
    class Shape(MethodValue):
        purpose, examples = "drawing a shape", "Square()"

        @abstractmethod
        def area(self) -> float: ...

    class Rectangle(Shape):
        """Abstract still: one thing is left to say."""

        def area(self) -> float:
            return self.side() ** 2

        @abstractmethod
        def side(self) -> float: ...

    @dataclass(frozen=True)
    class Square(Rectangle):
        width: float

        def side(self) -> float:
            return self.width

    assert Shape.checked(Square(2.0)).area() == 4.0
    with pytest.raises(InvalidArgument) as caught:

        class Large(Square):
            pass

    assert str(caught.value) == (
        "Square is final: a method's class is abstract, or nothing derives from it.\n"
        "  got:     class Large(Square)\n"
        "  do:      derive from the abstract class above it, or hold the other method in a field."
    )
    for wrong in (Square, "square", None, 3):
        with pytest.raises(InvalidArgument, match="This is not a method of drawing a shape: a method is a value"):
            Shape.checked(wrong)


@pytest.mark.parametrize(
    "verb",
    [
        lambda wrong: tv.extract(None, "present-past", method=wrong),
        lambda wrong: tv.discover(None, None, method=wrong),
        lambda wrong: tv.representation_map(None, "present-past", 0, method=wrong),
    ],
    ids=["extract", "discover", "representation_map"],
)
def test_every_verb_refuses_what_is_no_method_before_it_looks_at_the_model(verb):
    for wrong in ("unheard of", 3, tv.circuits.EAP, tv.methods.ResidualMean, tv.methods.PCA, object()):
        with pytest.raises(InvalidArgument, match="a method is a value"):
            verb(wrong)


@pytest.mark.parametrize("old, new", [("pca", "tv.methods.PCA"), ("umap", "tv.methods.UMAP")])
def test_names_of_maps_are_values_now(old, new):
    with pytest.raises(RenamedError) as caught:
        tv.representation_map(None, "present-past", 0, method=old)
    assert f'method="{old}" has another name' in str(caught.value) and f"use method={new}()" in str(caught.value)


def test_the_decorator_looks_at_the_parameter_wherever_it_stands():
    @takes_method(MapMethod, "maps")
    def verb(model, maps: MapMethod | None = tv.methods.PCA(), *, seed: int = 0):
        """What comes back."""
        return maps

    assert (
        verb(1) == verb(1, tv.methods.PCA()) == verb(1, maps=tv.methods.PCA()) == tv.methods.PCA()
        and verb(1, None) is None
    )
    assert verb.__doc__ == "What comes back." and list(inspect.signature(verb).parameters) == ["model", "maps", "seed"]
    for call in (lambda: verb(1, "x"), lambda: verb(1, maps="x"), lambda: verb(1, tv.methods.PCA)):
        with pytest.raises(InvalidArgument, match="not a method of drawing a map"):
            call()
    with pytest.raises(RenamedError):
        verb(1, maps="pca")

    @takes_method(MapMethod)
    def strict(method: MapMethod = tv.methods.UMAP()):
        return method

    with pytest.raises(InvalidArgument, match="got:     None"):
        strict(None)
