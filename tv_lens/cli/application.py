"""The application `tv-lens`: its help, the options that commands share, and how old names are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tv_lens.cli.loader import loaded
from tv_lens.errors import unknown

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
    add_completion=False,
    no_args_is_help=True,
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
        metavar="qa|arrow|io",
        show_default="the task's own: qa",
        help="The text around inputs and answers.",
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
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub name.", show_default=False)]
Dtype = Annotated[str, typer.Option(help="Type of the weights.")]
Device = Annotated[str | None, typer.Option(help="Where to run.", show_default="a GPU if there is one")]
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
    """A built-in template by its name.

    Raises:
        UnknownName: no built-in template has this name; the error gives the nearest ones.
    """
    tasks = loaded("tv_lens.tasks")
    known = {one.name: one for one in (tasks.QA, tasks.ARROW, tasks.IO)}
    if name is not None and name not in known:
        raise unknown("template", name, known, do="templates of your own: in Python, tv.tasks.Template(...)")
    return None if name is None else known[name]
