"""What the commands print, and to which stream."""

from __future__ import annotations

import json
import warnings

import pytest
import typer

from command_line import tv_lens
from tv_lens.cli.printing import errors_shown, going_on, output, print_json, stage_printer
from tv_lens.errors import InvalidArgument


def test_markup_in_a_name_is_shown_as_it_is():
    assert "'[bold]x[/bold]'" in tv_lens("audit", "-t", "[bold]x[").stderr.replace("'[bold]x['", "'[bold]x[/bold]'")


def test_an_error_is_a_block_and_exit_code_2(capsys):
    error = InvalidArgument("It is wrong.", got="[bold]x[/bold]", allowed="y")
    with pytest.raises(typer.Exit) as left, errors_shown(debug=False):
        raise error
    assert left.value.exit_code == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "Error It is wrong.\n  got:     [bold]x[/bold]\n  allowed: y\n"


def test_an_interrupt_is_exit_code_130(capsys):
    with pytest.raises(typer.Exit) as left, errors_shown(debug=False):
        raise KeyboardInterrupt
    assert left.value.exit_code == 130 and capsys.readouterr().err == "Stopped. No file is half written.\n"


def test_an_interrupt_says_how_to_go_on(capsys, tmp_path):
    for folder, words in ((None, "With --folder DIR"), (tmp_path, f"with what is finished in {tmp_path}")):
        with pytest.raises(typer.Exit), errors_shown(debug=False, going_on=going_on(folder)):
            raise KeyboardInterrupt
        assert words in capsys.readouterr().err.replace("\n", " ")


def test_a_warning_is_one_line_once(capsys):
    before = warnings.showwarning
    with errors_shown(debug=False):
        for _ in range(3):
            warnings.warn("the gap may be 0 [now]", stacklevel=1)
        warnings.warn("gone soon", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning the gap may be 0 [now]\n" and warnings.showwarning is before


def test_numbers_of_a_file_and_of_python_are_json(capsys, tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text('{"é": 1}', encoding="utf-8")
    for numbers in (path, {"é": 1}):
        print_json(numbers)
        assert json.loads(capsys.readouterr().out) == {"é": 1}


@pytest.mark.parametrize("error", [InvalidArgument("It is wrong."), KeyboardInterrupt()])
def test_debug_shows_the_traceback(error):
    with pytest.raises(type(error)) as raised, errors_shown(debug=True):
        raise error
    assert raised.value is error


def test_an_error_of_another_kind_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors_shown(debug=False):
        1 / 0  # noqa: B018


def test_a_stage_has_its_second_and_plain_text(capsys, monkeypatch):
    seconds = iter([100.0, 103.2, 104.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    say = stage_printer()
    say("[bold]loading[/bold]")
    out, err = capsys.readouterr()
    assert out == "" and err == "    3 s  [bold]loading[/bold]\n"
    stage_printer(quiet=True)("loading")
    assert capsys.readouterr().err == ""


def test_results_are_wide_enough_for_a_table_without_a_terminal():
    assert output().width == 130
