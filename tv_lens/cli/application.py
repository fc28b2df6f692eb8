"""The application `tv-lens`: its help, the options that commands share, and how old names are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tv_lens.cli.loader import loaded

if TYPE_CHECKING:
    from tv_lens.tasks.templates import Template

DEMO_MODEL = "smollm2-135m"

# Names of version 0.1: for each command, the new name of a flag, or of the command itself under None.
RENAMED: dict[str, dict[str | None, str]] = {
    "demo": {"--run": "--folder"},  # renamed in version 0.2, as are all that follow
    "lens": {None: "tv-lens survey"},
    "survey": {"--run": "--folder"},  # renamed
    "emergence": {
        "--run": "--network",  # renamed
        "--cache": "--folder",
        "--draw": "--seed, and --network-seed for the network's",
    },
    "pack-run": {None: "tv-lens pack-network"},  # renamed
}


class _Commands(TyperGroup):
    """Commands that refuse a name of an earlier version with an error that gives the new name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The rest of the arguments; without any, the help is shown, which is no failure."""
        if not args:
            typer.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with, unless it or one of its flags has been renamed."""
        old = RENAMED.get(args[0], {}) if args else {}
        if None in old:
            ctx.fail(f"{args[0]!r} has another name since version 0.2: use {old[None]}.")
        for argument in args[1:]:
            flag = argument.partition("=")[0]
            if flag in old:
                ctx.fail(f"{flag} has another name since version 0.2: use {old[flag]}.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="tv-lens",
    cls=_Commands,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Where a model encodes a task, the vector that carries it, and what patching it does.",
    epilog="""[bold]Examples[/bold]

The main job on the embedded model:  [cyan]tv-lens demo[/cyan]

One task, in depth:  [cyan]tv-lens survey --task antonym --out survey[/cyan]

Your model, your pairs:  [cyan]tv-lens survey --model ./mine --task pairs.json[/cyan]

What guessing would score:  [cyan]tv-lens audit --task antonym[/cyan]""",
)


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"tv-lens {sys.modules['tv_lens'].__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version, and stop.")
    ] = False,
) -> None:
    """What stands before the commands."""


Tasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        metavar="NAME|FILE",
        show_default=False,
        help="A built-in task, or a file of pairs (.json, .jsonl, .csv, .tsv); repeatable.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="An embedded model, a folder, a .gguf file or a hub name; see `tv-lens models`.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Where the report, its numbers and the vectors go.")
]
Seed = Annotated[int, typer.Option("--seed", help="Fixes every draw.")]
TemplateName = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="qa|arrow|io|FILE",
        show_default="the task's own: qa",
        help="The text around inputs and answers: a built-in template, or a .json file with the fields of one.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        show_default=False,
        help="Keep finished work there; the same command then continues where this one stopped.",
    ),
]
FolderInOut = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="Keep finished measurements there.", show_default="OUT/run"),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub name.", show_default=False)]
Dtype = Annotated[str, typer.Option(help="Type of the weights.")]
Device = Annotated[str | None, typer.Option(help="Where to run.", show_default="a GPU if there is one")]
Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, and nothing else, to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no stages while it runs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """The entry point of `tv-lens`."""
    app(prog_name="tv-lens")


def loading_options(**options: Any) -> dict[str, Any]:
    """Options for `load`, with the dtype's name replaced by the dtype."""
    if "dtype" not in options:
        return options
    return {**options, "dtype": loaded("tv_lens.loading.hugging_face").floating_dtype(options["dtype"])}


def template_called(name: str | None) -> Template | None:
    """A built-in template by its name, or the one of a file; None for None.

    Raises:
        UnknownName: no built-in template has this name.
        MissingFile: there is no such file.
        TaskFileError: the file does not hold a template.
    """
    return None if name is None else loaded("tv_lens.tasks.templates").as_template(name)
