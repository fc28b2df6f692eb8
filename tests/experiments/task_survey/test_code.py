"""The lines of code that a report proposes: they run, and the commands exist."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import replace

import typer

import tv_lens as tv
from tv_lens.cli import app
from tv_lens.experiments.task_survey.code import lines_of_code


def test_the_lines_of_code_it_proposes_run(result, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = replace(result, source="a folder/with a space")
    result.save("found")
    python = next(part for part in lines_of_code(result, "found") if part.startswith("```python"))
    code = python.removeprefix("```python\n").removesuffix("\n```")
    ast.parse(code)
    names = set(re.findall(r"\btv\.(\w+)", code))
    absent = sorted(name for name in names if not hasattr(tv, name))
    assert not absent, f"the report proposes tv.{absent[0]}, which is not public"
    monkeypatch.setattr(tv, "load", lambda source: model)
    monkeypatch.setattr("builtins.print", lambda *args: None)
    smaller = code.replace("range(0, ", "range(1, ").replace("scale=1.0", "scale=1.0, n=3")
    exec(compile(smaller, "report", "exec"), {})
    assert (tmp_path / "heads.html").exists()
    shell = next(part for part in lines_of_code(result, "found") if part.startswith("```sh"))
    assert "--model 'a folder/with a space' --task present-past --task capitalize \\\n" in shell


def test_the_commands_that_it_proposes_exist_with_their_options(result):
    shell = next(part for part in lines_of_code(result, "found") if part.startswith("```sh"))
    lines = shell.removeprefix("```sh\n").removesuffix("\n```").replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("tv-lens")]
    assert {name for _, name, *_ in commands} == {"survey", "audit", "tasks", "models"}
    for _, name, *arguments in commands:
        command = typer.main.get_command(app).get_command(None, name)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {one for one in arguments if one.startswith("-")} <= known


def test_a_template_of_one_s_own_and_a_task_made_in_python_leave_gaps_to_fill(result):
    settings = {**result.settings, "template": "mine"}
    text = "".join(lines_of_code(replace(result, settings=settings, asked=dict.fromkeys(result.asked)), "found"))
    assert "tv.task('my_pairs.json')" in text and "--task my_pairs.json" in text and "template=tv" not in text
