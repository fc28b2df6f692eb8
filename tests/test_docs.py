"""The documentation runs: every python block of a page in order, and what a page shows is what comes out.

A page's blocks share one namespace. A block whose first line is `# not run` is only compiled, and so is one that begins
with `# needs NAME` where no package of that name is installed. Where a `text` block
follows a `python` block directly, it is what the block displays, as a notebook would: what it prints, the value of its
last line, or the message of the `TVLensError` that it raises. `...` in it stands for anything.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import inspect
import io
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

import tv_lens as tv
from tv_lens import errors
from tv_lens.site import COMPONENTS

ROOT = Path(__file__).parents[1]
FRONT = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*FRONT, *sorted((ROOT / "docs").rglob("*.md"))]
SLOW: set[str] = set()  # pages that need more than the limit, by their path from the root
CPU_SECONDS = 60  # of one core for a page that is not slow; half of it when nothing else runs
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line's number, and the `text` block that shows its output."""

    language: str
    text: str
    line: int
    shown: str | None = None


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page in order; a text block that shows an output is part of the block it follows."""
    blocks: list[Block] = []
    language, start, lines, between = None, 0, [], True
    for number, line in enumerate(page.splitlines(), 1):
        if language is None and line.startswith("```"):
            language, start, lines = line[3:].strip(), number + 1, []
        elif language is not None and line.startswith("```"):
            block = Block(language, "\n".join(lines) + "\n", start)
            if block.language == "text" and blocks and blocks[-1].language == "python" and not between:
                block, before = None, blocks.pop()
                blocks.append(Block("python", before.text, before.line, "\n".join(lines) + "\n"))
            if block is not None:
                blocks.append(block)
            language, between = None, False
        elif language is not None:
            lines.append(line)
        elif line.strip():
            between = True
    assert language is None, f"the block that opens on line {start - 1} is not closed"
    return blocks


def displayed(block: Block, page: Path, namespace: dict) -> str:
    """What a block displays; an error of tv_lens counts where the page shows an output."""
    tree = ast.parse(block.text, filename=str(page))
    ast.increment_lineno(tree, block.line - 1)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(tree, str(page), "exec"), namespace)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), str(page), "eval"), namespace)
                if value is not None:
                    print(repr(value))
        except tv.errors.TVLensError as error:
            if block.shown is None:
                raise
            print(error)
    return out.getvalue()


def runs(block: Block) -> bool:
    """Whether a block is run here: not where it says so, and not without the package that it needs."""
    needed = re.match(r"# needs (\w+)", block.text)
    return not block.text.startswith("# not run") and (not needed or importlib.util.find_spec(needed[1]) is not None)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def params() -> list:
    return [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if name_of(page) in SLOW else [])
        for page in PAGES
    ]


@pytest.mark.parametrize("page", params())
def test_every_block_of_a_page_runs_and_shows_what_comes_out(page, request, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    if "smollm2-135m" in text and "```python" in text:
        model, load = request.getfixturevalue("smollm2"), tv.load
        monkeypatch.setattr(
            tv, "load", lambda source, **how: model if (source, how) == ("smollm2-135m", {}) else load(source, **how)
        )
    monkeypatch.chdir(tmp_path)  # pages save files
    namespace, started = {"__name__": "__main__"}, time.process_time()
    for block in blocks_of(text):
        if block.language != "python":
            continue
        if not runs(block):
            compile(block.text, str(page), "exec")
            continue
        got = displayed(block, page, namespace)
        if block.shown is not None and not doctest.OutputChecker().check_output(block.shown, got, FLAGS):
            pytest.fail(
                f"{name_of(page)}, line {block.line}: the page shows\n{block.shown}\nand what came out is\n{got}"
            )
    spent = time.process_time() - started
    assert name_of(page) in SLOW or spent < CPU_SECONDS, f"{name_of(page)} took {spent:.0f} s: a page is cheap, or slow"


def test_blocks_are_found_with_what_they_show():
    shown = "a\n```python\nx = 1\nx\n```\n\n```text\n1\n```\n"
    page = shown + "words\n```text\nalone\n```\n```python\n# not run: no GPU\n```\n"
    first, alone, last = blocks_of(page)
    assert first == Block("python", "x = 1\nx\n", 3, "1\n")
    assert (alone.language, alone.shown, last.shown) == ("text", None, None)
    assert displayed(first, ROOT / "page.md", {}) == "1\n"
    assert (runs(first), runs(last)) == (True, False)
    needing = [Block("python", f"# needs {name}\nx = 1\n", 1) for name in ("json", "no_such_package")]
    assert [runs(block) for block in needing] == [True, False]
    with pytest.raises(AssertionError, match="line 1 is not closed"):
        blocks_of("```python\nx")


def test_an_error_is_displayed_where_it_is_shown_and_raised_where_it_is_not():
    code = "import tv_lens as tv\ntv.Site('nothing')\n"
    assert displayed(Block("python", code, 1, "..."), ROOT / "page.md", {}).startswith(
        "No component is called 'nothing'."
    )
    with pytest.raises(errors.UnknownName):
        displayed(Block("python", code, 1), ROOT / "page.md", {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        aim = (page.parent / target).resolve() if target else page
        assert aim.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor and aim.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", aim.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {"#" + re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{name_of(page)} links to {target}{anchor}, and there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_are_named_exist(page):
    for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text(encoding="utf-8")):
        path = ROOT / file
        assert path.is_file(), f"{name_of(page)} names {file}, which is not there"
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), f"{name_of(page)} names {file}::{test}"


def test_every_error_has_a_section():
    kinds = [
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, tv.errors.TVLensError)
    ]
    heads = re.findall(r"^## (\w+)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(heads) == sorted(kinds)


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        name_of(page)
        for page in PAGES
        if page.parent != ROOT
        and page.name != "index.md"
        and f"({page.relative_to(ROOT / 'docs').as_posix()})" not in index
    ]
    assert not missing, f"docs/index.md does not link to {', '.join(missing)}"


def verbs() -> dict[str, inspect.Signature]:
    """The public functions that look into a model or a network, as `docs/conventions.md` calls them."""
    found: dict[str, inspect.Signature] = {}
    for room in ("", "circuits", "experiments", "methods", "model", "patching", "rows"):
        module, prefix = (getattr(tv, room), f"{room}.") if room else (tv, "")
        for name in module.__all__:
            verb = getattr(module, name)
            if not inspect.isfunction(verb) or name in found:
                continue
            signature = inspect.signature(verb)
            if next(iter(signature.parameters)) in ("model", "network", "regressor"):
                found[prefix + name] = signature
    return found


def default_of(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    if inspect.isfunction(value):
        return f"`tv.metrics.{value.__name__}`"
    if type(value).__module__.startswith("tv_lens"):
        return f"`{type(value).__name__}()`"
    return "`" + repr(value).replace("'", '"') + "`"


def test_the_table_of_parameters_is_that_of_the_signatures():
    """Every parameter that two verbs take, with its type, its default and the verbs; its meaning is for people."""
    actual: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for verb, signature in verbs().items():
        for parameter in signature.parameters.values():
            actual[f"`{parameter.name}`", f"`{parameter.annotation}`", default_of(parameter)].add(f"`{verb}`")
    takers = Counter(name for (name, _, _), names in actual.items() for _ in names)
    actual = {row: names for row, names in actual.items() if takers[row[0]] > 1}
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    shown = {}
    for line in (
        re.search(r"^\| name \| type \|.*?\n\n", page, flags=re.DOTALL | re.MULTILINE)[0].strip().splitlines()[2:]
    ):
        name, kind, default, meaning, names = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        assert meaning, line
        shown[name, kind.replace("\\|", "|"), default] = set(names.split(", "))
    assert shown == actual


def test_the_old_names_stand_in_the_changelog():
    """Whoever meets a `RenamedError` finds the name in the one table."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files = [path for path in (ROOT / "tv_lens").rglob("*.py") if path.name != "renamed.py"]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    keywords = {
        f"{old}="
        for call in re.findall(r"@renamed_keywords\((.*?)\)\n", source)
        for old in re.findall(r"(?:^|[\s,])(\w+)=\"", call)
    }
    assert {"run=", "positions=", "plan="} <= keywords
    missing = sorted(old for old in keywords if old not in changelog)
    assert not missing, f"CHANGELOG.md does not name {', '.join(missing)}"


def test_the_names_side_by_side_are_those_of_the_components():
    """The page for people who know TransformerLens names every component with TransformerLens's hook."""
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8").partition("## Names side by side")[2]
    shown = dict(re.findall(r"^\| `([\w.\[\]]+)` \| `([\w.]+)`", page, flags=re.MULTILINE))
    for name, hook in shown.items():
        assert str(tv.Site.parse(hook)) == name.partition(".h")[0], name
    assert {tv.Site.parse(name).component for name in shown} == set(COMPONENTS)
