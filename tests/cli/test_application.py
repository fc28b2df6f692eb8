"""The application: its help, its errors, and how old names are refused."""

from __future__ import annotations

import re

import pytest
import torch
import typer

import tv_lens as tv
from command_line import plain, tv_lens
from tv_lens import tasks
from tv_lens.cli import app
from tv_lens.cli.application import RENAMED, loading_options, template_called
from tv_lens.errors import UnknownName

COMMANDS = ("demo", "survey", "tasks", "audit", "models", "circuit", "emergence", "paper", "train", "pack-network")


def test_help_names_the_commands_and_shows_examples():
    found = tv_lens("--help")
    assert found.exit_code == 0
    for name in COMMANDS:
        assert name in found.stdout
    assert "Examples" in found.stdout and "tv-lens survey --task antonym --out survey" in plain(found.stdout)


def test_a_bare_command_shows_the_help_and_succeeds():
    bare = tv_lens()
    assert bare.exit_code == 0 and "Usage: tv-lens" in plain(bare.stdout) and "survey" in bare.stdout


def test_the_version():
    assert tv_lens("--version").stdout == f"tv-lens {tv.__version__}\n"


# One word per flag: every command that takes long, or loads a model, has the same.
LONG = ("demo", "survey", "circuit", "emergence", "paper")
LOADING = ("survey", "circuit", "paper")


@pytest.mark.parametrize(
    "commands, flags",
    [
        (LONG, ("--folder", "--json", "--quiet", "--seed", "--out", "--debug")),
        (LOADING, ("--model", "--revision", "--dtype", "--device")),
        (("survey", "circuit", "audit"), ("--task", "--template")),
        (("tasks", "audit", "models"), ("--json",)),
    ],
)
def test_one_word_per_flag(commands, flags):
    known = typer.main.get_command(app).commands
    for command in commands:
        options = {option for parameter in known[command].params for option in parameter.opts}
        assert set(flags) <= options, command


@pytest.mark.parametrize(
    "arguments",
    [
        ("survey", "-t", "antonym", "-k", "0"),
        ("survey", "-t", "antonym", "--n", "0"),
        ("circuit", "-t", "antonym", "-k", "-1"),
        ("circuit", "-t", "antonym", "--edges", "0"),
        ("circuit", "-t", "antonym", "--layer", "-1"),
        ("circuit", "-t", "antonym", "--dtype", "flaot32"),
        ("circuit", "-t", "antonym", "--template", "arow"),
        ("survey", "-t", "antonym", "--template", "none.json"),
    ],
)
def test_a_value_is_refused_before_the_model_is_loaded(monkeypatch, arguments):
    monkeypatch.setattr("tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    found = tv_lens(*arguments)
    assert found.exit_code == 2 and found.stdout == "" and "Traceback" not in found.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    found = tv_lens(command, "-h")
    assert found.exit_code == 0 and f"Usage: tv-lens {command}" in plain(found.stdout)


def test_a_missing_option_is_told_by_typer():
    found = tv_lens("survey")
    assert found.exit_code == 2 and "Missing option" in found.stderr


OLD = [
    ("lens", None, "tv-lens survey"),
    ("pack-run", None, "tv-lens pack-network"),  # renamed
    ("demo", "--run", "--folder"),  # renamed
    ("survey", "--run", "--folder"),  # renamed
    ("emergence", "--run", "--network"),  # renamed
    ("emergence", "--cache", "--folder"),
    ("emergence", "--draw", "--seed, and --network-seed for the network's"),
]


@pytest.mark.parametrize("command, flag, new", OLD)
def test_an_old_name_is_refused_with_the_new_one(command, flag, new):
    old = flag or f"'{command}'"
    for arguments in [[command]] if flag is None else [[command, flag, "x"], [command, f"{flag}=x"]]:
        found = tv_lens(*arguments)
        assert found.exit_code == 2 and found.stdout == ""
        words = re.sub("[│╭╮╰╯─ ]+", " ", plain(found.stderr))  # the frame of the error
        assert f"{old} has another name since version 0.2: use {new}." in words


def test_the_table_of_old_names_is_the_list_above_and_names_what_exists():
    assert {(command, flag) for command, names in RENAMED.items() for flag in names} == {one[:2] for one in OLD}
    commands = typer.main.get_command(app).commands
    for command, names in RENAMED.items():
        for flag, new in names.items():
            if flag is None:
                assert command not in commands and new.removeprefix("tv-lens ") in commands
            else:
                options = {option for parameter in commands[command].params for option in parameter.opts}
                assert flag not in options and set(re.findall(r"--[a-z-]+", new)) <= options


def test_a_value_that_looks_like_an_old_flag_of_another_command_is_not_refused():
    found = tv_lens("tasks", "--cache")  # never a flag of this command
    assert found.exit_code == 2 and "No such option" in plain(found.stderr)


def test_a_dtype_by_its_name():
    assert loading_options(dtype="bfloat16", device="cpu") == {"dtype": torch.bfloat16, "device": "cpu"}
    assert loading_options() == {}


def test_a_template_by_its_name():
    assert template_called(None) is None and template_called("arrow") is tasks.ARROW
    with pytest.raises(UnknownName, match=r"or a .json file with its fields"):
        template_called("one of my own")
