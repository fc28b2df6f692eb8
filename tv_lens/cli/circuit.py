"""`tv-lens circuit`: what reads a task vector, edge by edge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tv_lens.cli.application import (
    DEMO_MODEL,
    Debug,
    Device,
    Dtype,
    Folder,
    Json,
    Model,
    Quiet,
    Revision,
    Seed,
    Tasks,
    TemplateName,
    app,
    loading_options,
    template_called,
)
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, going_on, output, print_json, stage_printer
from tv_lens.cli.threads import use_cores
from tv_lens.errors import unknown

if TYPE_CHECKING:
    from tv_lens.experiments import DecodingResult

_EPILOG = """[bold]Examples[/bold]

One task, quickly:  [cyan]tv-lens circuit -t present-past --size demo[/cyan]

Several tasks, compared:  [cyan]tv-lens circuit -t present-past -t singular-plural --edges 200[/cyan]

At a layer of your choice:  [cyan]tv-lens circuit -m ./mine -t pairs.csv --layer 12 --out found[/cyan]

Resumable, should it be stopped:  [cyan]tv-lens circuit -t antonym --size full --folder work[/cyan]"""


@app.command(epilog=_EPILOG)
def circuit(
    task: Tasks,
    model: Model = DEMO_MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the page and the circuits go.")] = Path(
        "circuits"
    ),
    layer: Annotated[
        int | None,
        typer.Option(min=0, help="The layer where the vectors are injected.", show_default="where they work best"),
    ] = None,
    edges: Annotated[int, typer.Option(min=1, help="How many of the strongest edges make a circuit.")] = 100,
    shots: Annotated[
        int, typer.Option("--shots", "-k", min=1, help="Demonstrations in the prompts behind a vector.")
    ] = 10,
    size: Annotated[
        str, typer.Option("--size", metavar="demo|standard|full", help="How much is measured.")
    ] = "standard",
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Queries on which edges are measured.", show_default="the size's")
    ] = None,
    seed: Seed = 0,
    template: TemplateName = None,
    revision: Revision = None,
    dtype: Dtype = "float32",
    device: Device = None,
    folder: Folder = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the edges that decode tasks' vectors, test them on held-out queries, and draw them."""
    with errors_shown(debug, going_on(folder)):
        library, circuits = loaded("tv_lens.tasks"), loaded("tv_lens.experiments.vector_circuits")
        for each in (out, folder):
            if each is not None:
                loaded("tv_lens.experiments.folders").check_folder(each)
        if size not in circuits.CIRCUIT_SIZES:
            raise unknown("size", size, circuits.CIRCUIT_SIZES)
        named = [library.task(one) for one in task]
        around, how = template_called(template), loading_options(revision=revision, dtype=dtype, device=device)
        say = stage_printer(quiet)
        say(f"loading {model}")
        hooked = loaded("tv_lens.model.hooked_model").load(model, **how)
        use_cores(say, hooked)
        result = circuits.decoding_circuits(
            hooked,
            named,
            layer=layer,
            edges=edges,
            shots=shots,
            size=size,
            n=n,
            seed=seed,
            template=around,
            say=say,
            folder=folder,
        )
        _finish(result, out, say, json)


def _finish(result: DecodingResult, out: Path, say: Callable[[str], None], json: bool) -> None:
    """Writes the page and the circuits; prints what each circuit carries, and where the page is."""
    say("writing the page")
    numbers = result.save(out)
    written = loaded("tv_lens.experiments").report(result).save(out / "circuits.html")
    if json:
        print_json(numbers)
        return
    output().print()
    for one in result.found.values():
        output().print(one.sentence(), highlight=False, markup=False)
    output().print()
    typer.echo(f"Page:     {written}")
    typer.echo(f"Numbers:  {numbers}")
    typer.echo(f"Circuits: {written.parent}/*.json, *.graph.json, *.graphml, *.dot")
