"""Kinds of values in words: what a parameter takes, what it was given, and how the one becomes the other."""

from __future__ import annotations

import ast
import math
import reprlib

# What annotations name, in words: one of them, and several.
KINDS: dict[str, tuple[str, str]] = {
    "bool": ("True or False", "values that are True or False"),
    "bytes": ("bytes", "bytes"),
    "float": ("a number", "numbers"),
    "int": ("a whole number", "whole numbers"),
    "str": ("a text", "texts"),
    "Any": ("anything", "anything"),
    "Answers": ("tv.metrics.Answers", "tv.metrics.Answers"),
    "Bar": ("a progress bar", "progress bars"),
    "Circuit": ("a circuit: scores.top(n)", "circuits"),
    "Contrast": ("a tv.circuits.Contrast", "contrasts"),
    "EdgeScores": ("the edges' scores: tv.discover(...)", "edges' scores"),
    "Episodes": ("episodes: family.sample(n)", "episodes"),
    "FolderLike": ("a path, a tv.RunFolder, or None", "paths"),
    "HeadLike": ('a head: "a3.h1" or (3, 1)', 'heads: "a3.h1" or (3, 1)'),
    "HookedModel": ("a HookedModel: tv.load(...)", "models"),
    "Intervention": ('an intervention: tv.Zero("z[5].h3"), vector.replace()', "interventions"),
    "Method": ("an extraction method: tv.methods.ResidualMean(...)", "extraction methods"),
    "Metric": ("a function from logits and answers to one number per example", "metrics"),
    "Tensor": ("a tensor", "tensors"),
    "MetricLike": (
        'a function from logits and answers to one number per example, or the name of a metric: "logit_diff"',
        "metrics",
    ),
    "Pair": ("an (input, answer) pair", "(input, answer) pairs"),
    "PathLike": ("a path", "paths"),
    "Path": ("a path", "paths"),
    "Prompts": ("prompts: task.queries(...)", "prompts"),
    "PromptPairs": ("clean and corrupted prompts: task.pairs(...)", "pairs of prompts"),
    "Regressor": ("a network of the laboratory: tv.lab.load(...)", "networks"),
    "Say": ("a function that takes one line of text", "functions"),
    "Site": ('an address: tv.Site("z", 5), "z[5].h3"', "addresses"),
    "Sites": ('a selection: tv.sites("resid_post")', "selections of sites"),
    "SitesLike": ('sites: tv.sites("resid_post"), "z[5].h3", or several', "sites"),
    "SupportsIndex": ("a whole number", "whole numbers"),
    "Sweep": ("a Sweep", "sweeps"),
    "Task": ("a task: tv.task(...)", "tasks"),
    "TaskLike": ("a task, its name, or the path of a file of pairs", "tasks, their names or files"),
    "Tasks": ("a task, its name or its file, several of them, or a mapping from names to them", "tasks"),
    "TaskVector": ("a task vector: tv.extract(...)", "task vectors"),
    "Template": ("a template: tv.tasks.QA, tv.tasks.Template(...)", "templates"),
    "TokenBatch": ("a TokenBatch: model.tokens(...)", "token batches"),
    "TokenizedPrompts": ("tokenized prompts: prompts.tokenize(model)", "tokenized prompts"),
    "Tokens": ("a text, texts, prompts of a task, token ids, what a tokenizer returns, or a TokenBatch", "prompts"),
    "dtype": ("a dtype", "dtypes"),
}
# One word means one thing in every signature, and so does the least number that it can be.
LEAST = {
    **dict.fromkeys(("seed", "network_seed"), 0),  # numpy's generators take no other
    **dict.fromkeys(("n_random", "permutations", "recheck"), 0),
    **dict.fromkeys(("height", "memory_budget", "splits", "subsets"), 1),
}
_SEVERAL = ("Sequence", "Iterable", "Collection", "list", "tuple", "set", "frozenset")
_NUMBERS = ("int", "float", "SupportsIndex")
_TENSORS = {"Float": "real numbers", "Int": "whole numbers", "Bool": "True and False"}

# What a parameter takes, the class of what it was given (or one that this derives from), and what to do.
_FRAME = 'make a task of it: tv.task(frame), with columns "input" and "output", or tv.task(frame, columns=(..., ...))'
_PAIRS = "make a task of the (input, answer) pairs: tv.task(pairs)"
_TEXTS = "make prompts of texts: tv.tasks.Prompts.from_texts(texts, answers)"
_BOTH_SIDES = "take task.pairs(...), or tv.tasks.PromptPairs.from_texts(clean, corrupted, answers)"
_NUMBER = "write the number itself: True would count as 1 and False as 0"
ADVICE: tuple[tuple[str, str, str], ...] = (
    ("HookedModel", "Module", "load it first: model = tv.load(model)"),
    ("HookedModel", "str", "load it first: model = tv.load({value!r})"),
    ("HookedModel", "PurePath", "load it first: model = tv.load({value!r})"),
    ("Regressor", "str", "load it first: regressor = tv.lab.load({value!r})"),
    ("PromptPairs", "Prompts", f"queries have no corrupted side: {_BOTH_SIDES}"),
    ("PromptPairs", "Task", "take task.pairs(n=50)"),
    ("PromptPairs", "str", f'prompts are made of a task, such as tv.task("present-past"): {_BOTH_SIDES}'),
    ("PromptPairs", "list", _BOTH_SIDES),
    ("PromptPairs", "tuple", _BOTH_SIDES),
    ("PromptPairs", "DataFrame", _BOTH_SIDES),
    ("Prompts", "Task", "take task.queries(n=50) or task.prompts(n=50)"),
    ("Prompts", "PromptPairs", "take one side of them: pairs.clean"),
    ("Prompts", "str", _TEXTS),
    ("Prompts", "list", _TEXTS),
    ("Tokens", "PromptPairs", "give one side of the pairs: pairs.clean or pairs.corrupted"),
    ("Tokens", "Task", "take the texts of prompts: task.queries(n=5).texts"),
    ("TaskLike", "DataFrame", _FRAME),
    ("Tasks", "DataFrame", _FRAME),
    ("Task", "DataFrame", _FRAME),
    ("TaskLike", "dict", _PAIRS),
    ("TaskLike", "list", _PAIRS),
    ("Task", "list", _PAIRS),
    ("Task", "str", "take the task of that name: tv.task({value!r})"),
    ("Iterable", "dict", "take its items: list(pairs.items())"),
    ("Iterable", "DataFrame", 'take its columns: list(zip(frame["input"], frame["output"]))'),
    ("Intervention", "str", "say what is done there: tv.Zero({value!r})"),
    ("Intervention", "Site", 'say what is done there: tv.Zero("{value}")'),
    ("Intervention", "TaskVector", "take vector.replace(), or vector.add(scale)"),
    ("TaskVector", "Tensor", "give it its site: tv.TaskVector(direction, site)"),
    ("Circuit", "EdgeScores", "take the strongest edges: scores.top(100)"),
    ("EdgeScores", "Circuit", "take the scores behind it: circuit.scores"),
    ("SupportsIndex", "slice", "name them all: range(start, stop)"),
    ("int", "slice", "name them all: range(start, stop)"),
    ("SupportsIndex", "bool", _NUMBER),
    ("int", "bool", _NUMBER),
    ("float", "bool", _NUMBER),
    ("float", "complex", "take the real part, or the absolute value"),
)


def in_words(annotation: str) -> str:
    """What a parameter takes.

    Example:
        >>> in_words("int | Sequence[int] | None")
        'a whole number, several whole numbers, or None'
    """
    try:
        tree = ast.parse(annotation.strip(), mode="eval").body
    except SyntaxError:
        return annotation
    arms = _arms(tree)
    texts = [_one(arm) for arm in arms if not (_name(arm) == "int" and _has(arms, "float"))]
    texts = [*dict.fromkeys(text for text in texts if text != "None"), *(["None"] if "None" in texts else [])]
    comma = "; " if any("," in text or " or " in text for text in texts) else ", "
    return texts[0] if len(texts) == 1 else comma.join(texts[:-1]) + f"{comma if len(texts) > 2 else ' '}or {texts[-1]}"


def limit_in_words(parameter: str) -> str:
    """What a parameter's name says beyond its annotation."""
    if parameter == "device":
        return '; as text "cpu", "cuda:0" or "mps"'
    return f", at least {LEAST[parameter]}" if parameter in LEAST else ""


def names_in(annotation: str) -> list[str]:
    """The names that an annotation has outside of brackets: of `TaskLike | Sequence[int]` these two."""
    try:
        return [_name(arm) for arm in _arms(ast.parse(annotation.strip(), mode="eval").body)]
    except SyntaxError:
        return []


def _arms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_arms(node.left), *_arms(node.right)]
    return [node]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _has(arms: list[ast.expr], name: str) -> bool:
    return any(_name(arm) == name for arm in arms)


def _one(node: ast.expr) -> str:
    """One alternative: a name, None, or something in brackets."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    name = _name(node)
    if name in KINDS:
        return KINDS[name][0]
    if not isinstance(node, ast.Subscript):
        return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name in _SEVERAL:
        return "several " + " or ".join(_all_of(parts))
    if name in ("Mapping", "dict", "MutableMapping") and len(parts) == 2:
        return f"a mapping from {_several(parts[0])} to {' or '.join(_all_of(parts[1:]))}"
    if name in _TENSORS:
        shape = parts[-1].value if isinstance(parts[-1], ast.Constant) else "..."
        return f"a tensor of {_TENSORS[name]} [{str(shape).strip()}]"
    if name == "Literal":
        return " or ".join(ast.unparse(part) for part in parts)
    return {"Callable": "a function", "type": "a class"}.get(name, ast.unparse(node))


def _all_of(parts: list[ast.expr]) -> list[str]:
    """The kinds of a list's entries, each once."""
    arms = [arm for part in parts for arm in _arms(part) if ast.unparse(arm) != "..."]
    return list(dict.fromkeys(_several(arm) for arm in arms if not (_name(arm) == "int" and _has(arms, "float"))))


def _several(node: ast.expr) -> str:
    name = _name(node)
    if isinstance(node, ast.Subscript) and name not in KINDS:
        return "lists of them" if name in _SEVERAL else ast.unparse(node)
    return KINDS[name][1] if name in KINDS else name


def shown(value: object) -> str:
    """A value as a message shows it: short, with its type."""
    kind = type(value).__name__
    if value is None:
        return "None"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape:
        return f"a {kind} of shape {list(shape)}" + (f", {dtype}" if dtype is not None else "")
    if isinstance(value, (str, bytes, int, float, complex, slice, range, list, tuple, dict, set)) or shape == ():
        try:
            return f"{reprlib.repr(value)} ({kind})"
        except Exception:
            return kind
    return kind if not isinstance(value, type) else f"the class {value.__name__}"


def advice(annotation: str, value: object, parameter: str, required: bool) -> str | None:
    """What turns a value into one that a parameter takes, where that is known."""
    if value is None:
        return None if required else f"leave {parameter}= out"
    if parameter == "memory_budget" and isinstance(value, str):
        return "write the number of bytes: 2**30 is one gibibyte"
    names, classes = names_in(annotation), {kind.__name__ for kind in type(value).__mro__}
    for name, given, do in ADVICE:
        if name in names and given in classes:
            return do.format(value=value)
    if isinstance(value, float) and math.isfinite(value) and {*_NUMBERS} & set(names):
        return f"write {int(value)}" if value == int(value) else "round it"
    digits = isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
    return "write the number without quotation marks" if digits and {*_NUMBERS} & set(names) else None
