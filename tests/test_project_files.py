"""What stands around the code: the contributors' guide, the citation, metadata, templates and the public workflow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tv_lens as tv

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
PAPER = "2412.12276"


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in WORKFLOW["jobs"][job]["steps"])


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_every_file_that_the_guide_names_is_there():
    named = set(re.findall(r"`((?:tv_lens|tests|docs|benchmarks|\.ci)/[\w/.-]*|[\w-]+\.(?:md|toml|txt))`", GUIDE))
    assert len(named) > 25
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"CONTRIBUTING.md names {missing}"


def test_the_guide_says_how_to_add_each_kind_of_thing():
    heads = re.findall(r"^## (.+)$", GUIDE, flags=re.MULTILINE)
    for thing in ("method", "task", "component", "law"):
        assert any(head.startswith("Add a") and thing in head for head in heads), thing


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_every_make_target_that_is_named_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {word for line in re.findall(r"`make ([a-z -]+)`", text) for word in line.split()}
    assert named and named <= targets()


def test_one_version_stands_everywhere():
    assert PROJECT["version"] == CITATION["version"] == tv.__version__
    assert f"## {tv.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version = {{{tv.__version__}}}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_citation_names_the_toolkit_and_the_paper():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert {"message", "title", "authors"} <= CITATION.keys()
    (paper,) = CITATION["references"]
    families = [author["family-names"] for author in paper["authors"]]
    assert PAPER in paper["url"] and families == ["Han", "Song", "Gore", "Agrawal"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    entries = re.findall(r"^@(\w+)\{(\w+),$", readme, flags=re.MULTILINE)
    assert [kind for kind, _ in entries] == ["software", "inproceedings"]
    cited = readme.partition("@inproceedings")[2]
    assert paper["title"] in cited and all(name in cited for name in families) and PAPER in cited
    for block in re.findall(r"```bibtex\n(.*?)```", readme, flags=re.DOTALL):
        assert block.count("{") == block.count("}")


def test_the_metadata_say_who_and_what():
    assert PROJECT["authors"] == [{"name": author["name"]} for author in CITATION["authors"]]
    assert PROJECT["license"] == CITATION["license"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]
    assert "Typing :: Typed" in PROJECT["classifiers"] and (ROOT / "tv_lens/py.typed").is_file()


def test_every_requirement_that_is_named_has_a_version_that_was_tested():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, exact = line.partition("==")
            pinned[canonicalize_name(name)] = exact
    named = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, named):
        name = canonicalize_name(requirement.name)
        if name == "setuptools":  # torch brings the one it wants
            continue
        assert name in pinned, f"constraints.txt has no {name}"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} and {pinned[name]}"


def test_the_public_workflow_does_what_ci_does():
    steps = [line for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.startswith("make ")]
    assert "bash .ci/run" in commands("test") and steps == ["make lint", "make test"]
    assert "make lint" in commands("lint")
    ends = WORKFLOW["jobs"]["versions"]["strategy"]["matrix"]["versions"]
    assert ends == ["lowest", "newest"] and "--resolution lowest-direct" in commands("versions")
    tested = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert all(f"Programming Language :: Python :: {one}" in PROJECT["classifiers"] for one in tested)
    everything = "\n".join(map(commands, WORKFLOW["jobs"]))
    for name in re.findall(r"tests/\w+\.py", everything):
        assert (ROOT / name).is_file(), name
    for line in re.findall(r"^make (.+)$", everything, flags=re.MULTILINE):
        assert set(line.split()) <= targets()


def test_issue_templates_have_what_the_form_needs():
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    assert {path.stem for path in folder.glob("*.md")} == {"bug", "feature", "wrong_number"}
    for path in folder.glob("*.md"):
        _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
        assert {"name", "about", "labels"} <= yaml.safe_load(head).keys() and "**" in body


def test_hooks_before_a_commit_run_the_ruff_of_the_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert [hook["entry"].split()[:2] for hook in hooks[0]["hooks"]] == [
        [".venv/bin/ruff", "check"],
        [".venv/bin/ruff", "format"],
    ]
