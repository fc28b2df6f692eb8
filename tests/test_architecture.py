"""Laws of the source itself, read with `ast`: who adds hooks (R1), who imports whom, what no file holds."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

import pytest

import tv_lens

ROOT = Path(tv_lens.__file__).parent
FILES = {
    ".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")
}

# A room may import those of a lower number, and itself; rooms of one number do not import each other.
LEVELS = {
    "errors": 0, "progress": 0, "renamed": 0.1, "site": 0.1, "batch": 0.1, "metrics": 0.1, "intervention": 0.2,
    "storage": 1, "results": 2, "loading": 3, "model": 4, "rows": 5, "tasks": 6, "patching": 7, "task_vectors": 8,
    "circuits": 8, "lab": 8, "viz": 9, "experiments": 10, "cli": 11,
}  # fmt: skip
HOOKS = {
    "hooks",
    "add_hook",
    "add_perma_hook",
    "run_with_hooks",
    "run_with_cache",
    "reset_hooks",
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def nodes(module: str, *, at_run_time: bool = False):
    """All nodes; `at_run_time` leaves out what only type checkers import."""
    waiting = [tree(module)]
    while waiting:
        node = waiting.pop()
        yield node
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)


def imported(module: str, *, at_run_time: bool = False) -> set[str]:
    """The full names of what a module imports, at its top or inside a function."""
    found = set()
    for node in nodes(module, at_run_time=at_run_time):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def direct(module: str) -> frozenset[str]:
    """The modules of ours that a module imports: `from tv_lens import weights` is one, `import tv_lens` is all."""
    ours = {name for name in imported(module, at_run_time=True) if name.split(".")[0] == "tv_lens"}
    return frozenset(name if name in FILES else name.rpartition(".")[0] for name in ours) & frozenset(FILES)


def reached(module: str) -> set[str]:
    """Everything of ours that comes along, through helpers that have no room of their own, too."""
    found, waiting = set(), [module]
    while waiting:
        new = direct(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def room(module: str) -> str:
    return ([*module.split("."), ""])[1]


def allowed(importer: str, imported: str) -> bool:
    return importer == imported or LEVELS[imported] < LEVELS[importer]


@pytest.mark.parametrize("module", [module for module in FILES if room(module)])
def test_imports_run_one_way(module):
    wrong = {other for other in reached(module) if room(other) and not allowed(room(module), room(other))}
    assert not wrong and "tv_lens" not in direct(module), f"{module} reaches {sorted(wrong)}"


def test_the_rule_itself_can_say_no():
    assert not allowed("patching", "task_vectors") and allowed("task_vectors", "patching")
    assert not allowed("site", "model") and not allowed("circuits", "task_vectors") and not allowed("model", "tasks")
    assert allowed("patching", "rows") and allowed("tasks", "metrics") and allowed("cli", "experiments")
    assert "tv_lens.model.registry" in reached(
        "tv_lens.patching.activations"
    ) and "tv_lens.model.hooked_model" not in direct("tv_lens.site")


def test_no_module_reaches_itself():
    circles = [module for module in FILES if module != "tv_lens" and module in top_level_reached(module)]
    assert circles == []


def top_level_reached(module: str) -> set[str]:
    """What importing a module runs: imports at the top of files. One inside a function waits for its call."""
    found, waiting = set(), [module]
    while waiting:
        here = waiting.pop()
        top = {n for n in tree(here).body if isinstance(n, (ast.Import, ast.ImportFrom))}
        names = {a.name if isinstance(n, ast.Import) else f"{n.module}.{a.name}" for n in top for a in n.names}
        new = (({n if n in FILES else n.rpartition(".")[0] for n in names}) & FILES.keys()) - {"tv_lens", here} - found
        found |= new
        waiting += new
    return found


def test_R1_only_registry_bridge_and_model_import_transformer_lens():
    importers = {module for module in FILES for name in imported(module) if name.split(".")[0] == "transformer_lens"}
    assert importers == {"tv_lens.model.registry", "tv_lens.model.hooked_bridge", "tv_lens.model.hooked_model"}


def test_R1_only_the_registry_adds_hooks_and_sets_flags():
    assert {module for module in FILES if any(map(touches_hooks, nodes(module)))} == {"tv_lens.model.registry"}


def touches_hooks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HOOKS:
        return True
    if isinstance(node, ast.Attribute) and node.attr.startswith(("set_use_", "use_attn_", "use_split_")):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("set_")


@pytest.mark.parametrize(
    "code",
    [
        "bridge.add_hook(n, f)",
        "with b.hooks(fwd_hooks=h): pass",
        "b.set_use_attn_result(True)",
        "getattr(b, f'set_{flag}')(True)",
        "b.cfg.use_attn_result = True",
        "m.register_forward_hook(f)",
    ],
)
def test_R1_no_way_of_adding_a_hook_escapes_the_rule(code):
    assert any(map(touches_hooks, ast.walk(ast.parse(code))))


def test_R1_only_the_registry_lets_other_code_run_in_a_models_place():
    def replaces_forward(node):
        if isinstance(node, ast.Attribute) and node.attr == "forward" and isinstance(node.ctx, ast.Store):
            return True
        setter = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "__setattr__"))
        return setter and any(isinstance(a, ast.Constant) and a.value == "forward" for a in node.args)

    assert {module for module in FILES if any(map(replaces_forward, nodes(module)))} == {"tv_lens.model.rerouting"}
    assert {module for module in FILES if "tv_lens.model.rerouting.narrowed" in imported(module)} == {
        "tv_lens.model.registry"
    }
    assert {module for module in FILES if "tv_lens.model.rerouting.replaced_blocks" in imported(module)} == {
        "tv_lens.model.registry"
    }


def test_viz_imports_only_result_types():
    """Figures are drawn from results: no verb, no model."""
    beside = {"errors", "viz"}
    for module in (m for m in FILES if room(m) == "viz"):
        for name in imported(module, at_run_time=True):
            owner, _, attribute = name.rpartition(".")
            if name.split(".")[0] != "tv_lens" or room(name) in beside:
                continue
            assert name not in FILES, f"{module} imports the whole of {name}"
            thing = getattr(importlib.import_module(owner), attribute)
            assert inspect.isclass(thing) or attribute.isupper(), f"{module} imports {name}"


@pytest.mark.parametrize(
    "package", ["plotly", "circuitsvis", "umap", "sklearn", "typer", "rich", "peft", "conllu", "gguf"]
)
def test_heavy_packages_wait_for_their_first_use(package):
    eager = []
    for module in FILES:
        for node in tree(module).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                eager += [module for name in names if name.split(".")[0] == package]
    assert not {module for module in eager if not module.startswith("tv_lens.cli")}


@pytest.mark.parametrize("module", FILES)
def test_no_file_asserts_prints_or_grows_too_long(module):
    found = [
        node
        for node in nodes(module)
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
    ]
    assert [node.lineno for node in found] == []
    assert (
        len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 480
    )  # until files that the formatter made longer are split
    assert ast.get_docstring(tree(module)), "every file says what it is"


def test_no_module_hides_behind_a_public_name():
    """`tv_lens.patch` is the verb, `tv_lens.patching` the package: a name that is both would break one of them."""
    for module in FILES:
        name = room(module)
        if name and "." not in module.removeprefix("tv_lens.") and hasattr(tv_lens, name):
            public = getattr(tv_lens, name)
            assert inspect.ismodule(public) or not (ROOT / f"{name}.py").exists(), name
