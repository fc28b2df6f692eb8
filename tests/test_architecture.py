"""Laws of the source itself, read with `ast`: who imports whom, who adds hooks (R1), how long things are, which words.

`FOLDERS` is the house from bottom to top: a module imports only modules of folders above its own in this list, and of
its own folder only what stands on a line above its own (`&` continues a line). All imports count: those inside
functions and under TYPE_CHECKING, and the modules that the command line loads by name.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

import tv_lens

ROOT = Path(tv_lens.__file__).parent
TESTS = Path(__file__).parent
FILES = {
    ".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")
}

FOLDERS = {
    "words": """
        coerced errors kind_words progress torch_settings
        type_hints
        kinds
        batch cores metrics renamed site
        intervention method_value
    """,
    "storage": """
        atomic configuration
        envelope output_folder
        old_files
        shard_file
        manifest
        sharded_work
        run_folder
        runner
    """,
    "results": """
        bootstrap correlations selection sweep_file sweep_parts
        joining rates recovery
        limits
        crossed vote_limits
        sweep
        concatenation differences draw_limits draws sweep_group
    """,
    "loading": """
        fingerprint folder_cache gguf_header hugging_face
        gguf_rope gguf_tokenizer stored_weights
        gguf_config
        gguf
        weights
        in_memory
    """,
    "model": """
        capture_file editing grad_mode length_tables lock passes rerouting support text_ids training_mode
        attachment bridging prompt_tokens
        foreign_hooks installation
        mark probe
        registry
        facts
        hooked_bridge
        capture load_checks stepping verb
        logits
        generation
        hooked_model
        attention_patterns masking readers untrained
    """,
    "rows": """
        base_run edits memory
        entering hook_passes unedited walk
        prompt_groups
        planning
        trial
        engine packing
        sharding
    """,
    "tasks": """
        null_rules pair_faults tokenizing
        templates
        drawing json_pairs prompt table_pairs twins
        files split_pairs
        conllu_files tokenized wordlists
        audit by_name derived pos_grammar prompts
        corruption
        definition
        bitwise pos positions
        words
        surface
    """,
    "patching": """
        alignment cells plain_runs scoring sender_changes
        activations
        effects
        paths
    """,
    "task_vectors": """
        activation_table decodability_result mean_activations neighbours ranking vector_file
        half_votes head_effects representations vector
        prompt_format
        decodability_votes injection map_method method selection
        decodability_measurement
        decodability function_vector pca_map residual_mean umap_map
        maps
        extraction universal
        control_vectors
        evaluation
    """,
    "methods": "",
    "circuits": """
        nodes permutation_tests truth.writing
        contrast edge_paths
        graph
        attention_alone circuit_json growing scores_file traces truth.known
        contrast_passes edge_table truth.absolute truth.relative
        edge_gradients exact method patched
        acdc circuit circuit_runs estimate
        eap
        exact_edges
        comparison discovery evaluation wiring
        export truth.board
        truth
    """,
    "lab": """
        change_points co_movement family posterior_probe soap
        sparse_mixture
        families
        network reference_predictors
        predictive recipes vector_tokenizer
        latent_task regressor training_run
        branches embedded training
    """,
    "viz": """
        theme training_view
        circuit_layout document slider static_style sweep_labels
        static_attention static_drawing static_panels static_traces
        static_plot
        static
        figure scrubber_panels
        bars dispatch heatmap lines scatter
        attention circuit decodability html maps scrubber sweeps
        results
    """,
    "experiments": """
        claims folders language_models.generation language_models.lora language_models.performance records
        & regressors.loss_changes regressors.signs reporting stages task_survey.size training.checkpoint
        & training.levels training.map training.network training.timing
        language_models.encoding language_models.prediction language_models.steering regressors.heads
        & regressors.patches training.sweeps vector_circuits.task_circuit
        language_models.checkpoints language_models.finetuning language_models.instruction
        & language_models.statements regressors.contrasts task_survey.result task_survey.stages vector_circuits.result
        language_models.claims regressors.circuits task_survey.code task_survey.measure vector_circuits.measure
        & vector_circuits.page
        language_models.result regressors task_survey.sections training.measurements vector_circuits
        language_models.measure language_models.page task_survey.page training.result
        language_models task_survey training.causal training.figures
        training.findings training.measure
        training.causal_claims training.loss_claims training.timing_claims
        training.decodability_claims
        training.claims
        training.causal_sections training.sections
        training.page
        training
        pictures
    """,
    "cli": """
        loader printing
        application threads
        circuit emergence listings paper survey train
    """,
}

HOOKS = {
    *("hooks", "add_hook", "add_perma_hook", "run_with_hooks", "run_with_cache", "reset_hooks"),
    *("register_forward_hook", "register_forward_pre_hook"),
    *("register_full_backward_hook", "register_full_backward_pre_hook"),
}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60  # a file as it stands; a function without its docstring

# Modules without a test file of their own name, and why.
UNTESTED_BY_NAME = {
    "tv_lens.tasks.null_rules": "a protocol without code; tasks/test_pos.py and test_bitwise.py test the rules"
}


def place(module: str) -> tuple[str, str]:
    """A module's folder and its name within it; the name of a package itself is empty."""
    parts = module.split(".")[1:]
    if len(parts) == 1 and FILES[module].name != "__init__.py":
        return "words", parts[0]
    return parts[0], ".".join(parts[1:])


@cache
def ranks() -> dict[str, tuple[int, int]]:
    """Each module's folder and line: it may import what has a lower rank."""
    found = {}
    for level, (folder, lines) in enumerate(FOLDERS.items()):
        rows = [line.split() for line in re.sub(r"\n\s*&", "", lines.strip()).splitlines()]
        for row, names in enumerate([*rows, [""]]):
            for name in names:
                parts = ["tv_lens", *([] if folder == "words" else [folder]), *([name] if name else [])]
                found[".".join(parts)] = (level, row)
    found.pop("tv_lens")
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(node: ast.AST) -> set[str]:
    """The full names that a statement imports, or that the command line's loader is told to load."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno} imports relatively"
        return {f"{node.module}.{alias.name}" for alias in node.names}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "loaded":
        return {ast.literal_eval(node.args[0])}
    return set()


@cache
def named(module: str) -> frozenset[str]:
    """Everything that a module imports, wherever in it the import stands."""
    return frozenset(name for node in ast.walk(tree(module)) for name in imported(node))


def ours(names: frozenset[str]) -> set[str]:
    """The modules of ours among imported names: a module as it is, a name in a module as that module."""
    mine = {name for name in names if name.split(".")[0] == "tv_lens"}
    return {name if name in FILES else name.rpartition(".")[0] for name in mine}


# ---------------------------------------------------------------------------------------------------- who imports whom


def test_every_module_has_its_place():
    assert ranks().keys() == FILES.keys() - {"tv_lens"}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"tv_lens"}))
def test_imports_run_one_way(module):
    wrong = {other for other in ours(named(module)) if other == "tv_lens" or ranks()[other] >= ranks()[module]}
    assert not wrong, f"{module} imports {sorted(wrong)}"


def test_the_rule_itself_can_say_no():
    rank = ranks()
    assert rank["tv_lens.site"] < rank["tv_lens.intervention"] < rank["tv_lens.model.registry"]
    assert rank["tv_lens.model.registry"] < rank["tv_lens.model.hooked_model"] < rank["tv_lens.rows.engine"]
    assert "tv_lens.rows.engine" in ours(named("tv_lens.patching.activations"))
    assert ours(frozenset({"tv_lens.rows.trial.why_not", "tv_lens.rows.trial", "torch.nn"})) == {"tv_lens.rows.trial"}
    inside = ast.parse("def f():\n    from tv_lens.cli import app\n    return loaded('tv_lens.lab')")
    assert {name for node in ast.walk(inside) for name in imported(node)} == {"tv_lens.cli.app", "tv_lens.lab"}


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_import_of_ours_stands_inside_a_function(module):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, kinds)]
    hidden = {name for function in functions for node in ast.walk(function)
              if isinstance(node, (ast.Import, ast.ImportFrom)) for name in imported(node)}  # fmt: skip
    assert not {name for name in hidden if name.split(".")[0] == "tv_lens"}


def test_modules_are_named_by_strings_in_two_places_only():
    ways = ("loaded", "importlib.import_module", "__import__")
    users = {module for module in FILES for node in ast.walk(tree(module))
             if isinstance(node, ast.Call) and ast.unparse(node.func) in ways}  # fmt: skip
    assert {module for module in users if not module.startswith("tv_lens.cli")} == set()
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    sources = {f"tv_lens.{node.module}" for node in stub.body if isinstance(node, ast.ImportFrom) and node.module}
    assert sources <= FILES.keys()


@pytest.mark.parametrize("package", sorted(module for module, path in FILES.items() if path.name == "__init__.py"))
def test_no_name_is_both_a_module_and_something_else(package):
    """`import tv_lens.lab.thing` must give the module, and `tv_lens.lab.thing` the same."""
    here, inside = importlib.import_module(package), FILES[package].parent
    for path in inside.iterdir():
        name = path.stem
        is_module = (path.suffix == ".py" and name != "__init__") or (path / "__init__.py").exists()
        if is_module and name in getattr(here, "__all__", ()):
            assert inspect.ismodule(getattr(here, name)), f"{package}.{name}"


# --------------------------------------------------------------------------------------------------------- the registry


def test_R1_only_the_model_room_imports_transformer_lens():
    importers = {module for module in FILES for name in named(module) if name.split(".")[0] == "transformer_lens"}
    assert {module.rpartition(".")[0] for module in importers} == {"tv_lens.model"}


def test_R1_only_the_installation_adds_hooks_and_sets_flags():
    touching = {module for module in FILES if any(map(touches_hooks, ast.walk(tree(module))))}
    assert touching == {"tv_lens.model.installation"}
    users = {module for module in FILES for name in named(module) if name.startswith("tv_lens.model.installation.")}
    assert users <= {f"tv_lens.model.{name}" for name in ("registry", "probe", "hooked_model")}


def touches_hooks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HOOKS:
        return True
    if isinstance(node, ast.Attribute) and node.attr.startswith(("set_use_", "use_attn_", "use_split_")):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("set_")


@pytest.mark.parametrize(
    "code",
    ["bridge.add_hook(n, f)", "with b.hooks(fwd_hooks=h): pass", "b.set_use_attn_result(True)",
     "getattr(b, f'set_{flag}')(True)", "b.cfg.use_attn_result = True", "m.register_forward_hook(f)"],
)  # fmt: skip
def test_R1_no_way_of_adding_a_hook_escapes_the_rule(code):
    assert any(map(touches_hooks, ast.walk(ast.parse(code))))


def test_R1_only_the_installation_lets_other_code_run_in_a_models_place():
    def replaces_forward(node):
        if isinstance(node, ast.Attribute) and node.attr == "forward" and isinstance(node.ctx, ast.Store):
            return True
        setter = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "__setattr__"))
        return setter and any(isinstance(a, ast.Constant) and a.value == "forward" for a in node.args)

    replacing = {module for module in FILES if any(map(replaces_forward, ast.walk(tree(module))))}
    # Rotary tables that depend on the length are corrected once, when a model is loaded, and stay so.
    assert replacing == {"tv_lens.model.rerouting", "tv_lens.model.length_tables"}
    for helper in ("narrow", "reroute_blocks", "restore_forward"):
        users = {module for module in FILES if f"tv_lens.model.rerouting.{helper}" in named(module)}
        assert users == {"tv_lens.model.installation"}


def test_R4_the_gradient_mode_is_switched_in_one_place():
    """`torch.no_grad` stays switched where its exit is interrupted; `GradMode` does not."""
    ways = ("no_grad", "enable_grad", "set_grad_enabled", "inference_mode")
    switching = {module for module in FILES for node in ast.walk(tree(module))
                 if isinstance(node, ast.Attribute) and node.attr in ways}  # fmt: skip
    assert switching == {"tv_lens.model.grad_mode"}


@pytest.mark.parametrize("module", sorted(FILES))
def test_whatever_computes_on_a_model_is_a_verb(module):
    """A public function of a model that may take long holds the model's mark while it runs."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.args:
            first, names = node.args.args[0], {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
            hooked = first.annotation is not None and ast.unparse(first.annotation) in ("HookedModel", "Regressor")
            if hooked and "progress" in names and node.name != "run_sharded":
                assert "verb" in [ast.unparse(decorator) for decorator in node.decorator_list], node.name


# ------------------------------------------------------------------------------------------------------ what files hold


def test_viz_imports_only_result_types():
    """Figures are drawn from results: no verb, no model."""
    beside = {"tv_lens.errors", "tv_lens.kinds", "tv_lens.renamed"}
    for module in (m for m in FILES if m.startswith("tv_lens.viz")):
        for name in named(module):
            owner, _, attribute = name.rpartition(".")
            if name.split(".")[0] != "tv_lens" or name.startswith("tv_lens.viz") or owner in beside:
                continue
            assert name not in FILES, f"{module} imports the whole of {name}"
            thing = getattr(importlib.import_module(owner), attribute)
            assert inspect.isclass(thing) or attribute.isupper(), f"{module} imports {name}"


def test_a_result_never_imports_its_page():
    for module in (m for m in FILES if m.endswith(".result")):
        assert not {name for name in named(module) if ".page" in name or ".viz" in name}, module


HEAVY = ["plotly", "circuitsvis", "umap", "sklearn", "typer", "rich", "peft", "conllu", "gguf"]


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_wait_for_their_first_use(package):
    eager = {module for module in FILES for node in tree(module).body for name in imported(node)
             if isinstance(node, (ast.Import, ast.ImportFrom)) and name.split(".")[0] == package}  # fmt: skip
    assert not {module for module in eager if not module.startswith("tv_lens.cli")}


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_file_asserts_prints_or_grows_too_long(module):
    for node in ast.walk(tree(module)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error that says what to do"
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "print"), f"line {node.lineno}"
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert ast.get_docstring(tree(module)), "every file says what it is"


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_function_grows_too_long(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            lines = node.end_lineno - node.lineno - (first.end_lineno - first.lineno + 1 if documented else 0)
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


# ------------------------------------------------------------------------------------------------ tests and their files


def has_behaviour(module: str) -> bool:
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree(module)))


@pytest.mark.parametrize("module", sorted(m for m in FILES if FILES[m].name != "__init__.py" and has_behaviour(m)))
def test_every_module_has_a_test_file_of_its_name(module):
    folder, name = place(module)
    file = TESTS.joinpath(folder, *name.split(".")[:-1], f"test_{name.split('.')[-1]}.py")
    assert file.exists() or module in UNTESTED_BY_NAME, f"no {file.relative_to(TESTS)}"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_file_grows_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
