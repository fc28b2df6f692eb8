"""`tv-lens train` and `pack-network`: a network of the laboratory, trained from scratch, and packed into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tv_lens.cli.application import Debug, Device, Seed, app
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, output, stage_printer
from tv_lens.cli.threads import use_cores

_EPILOG = """[bold]Examples[/bold]

A laptop's half hour:  [cyan]tv-lens train --preset small --seed 0 --out networks/bases4-0[/cyan]

The same command continues where it was stopped.

The paper's own size, on a GPU:  [cyan]tv-lens train --preset paper --out networks/paper-0[/cyan]"""


@app.command(epilog=_EPILOG)
def train(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="The folder of the training run; a stopped run continues."),
    ],
    preset: Annotated[
        str,
        typer.Option(
            "--preset", "-p", metavar="NAME", help="One of: tiny, small, bases6, overlapping, functions, paper."
        ),
    ] = "small",
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the preset's")] = None,
    batch: Annotated[int | None, typer.Option(help="Episodes per step.", show_default="the preset's")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="the preset's")] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(help="Stop after this step; the same command trains the rest later.", show_default=False),
    ] = None,
    device: Device = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of the CPU; with 1, a resumed run gives the same bits.", show_default="the cores there are"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a small transformer on a family of in-context regression tasks."""
    with errors_shown(debug, "The same command continues where it was stopped."):
        use_cores(stage_printer(), threads=threads)
        changes = {name: value for name, value in (("steps", steps), ("batch", batch), ("lr", lr)) if value is not None}
        lab = loaded("tv_lens.lab")
        run = lab.train(lab.preset(preset, seed=seed, **changes), out, device=device, stop_after=stop_after)
        log = run.log()
        log = log[log.kind == "checkpoint"]
        output().print(f"{run!r}\nin {out}", highlight=False)
        for row in log[log.step == log.step.max()].itertuples():
            output().print(f"  {row.task}: mean squared error {row.mse:.3f}", highlight=False)


@app.command(
    "pack-network",
    epilog="[bold]Example[/bold]\n\n[cyan]tv-lens pack-network networks/bases4-0 --name bases4 --keep 8[/cyan]",
)
def pack_network(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a training run.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the network; the seed is appended.")],
    keep: Annotated[int, typer.Option("--keep", help="How many checkpoints.")] = 8,
    since: Annotated[int, typer.Option(min=1, help="The first step that is kept, after the untrained network.")] = 1,
    command: Annotated[str, typer.Option("--command", help="The command that trained it, as it was typed.")] = "",
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Where the file goes.", show_default="the package's own networks"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Pack a training run into one file of half-precision weights that `tv.lab.load` finds by name."""
    with errors_shown(debug):
        lab = loaded("tv_lens.lab")
        where = {} if into is None else {"into": into}
        path = lab.pack(lab.TrainingRun(folder), name, keep=keep, since=since, command=command, **where)
        output().print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)", highlight=False)
