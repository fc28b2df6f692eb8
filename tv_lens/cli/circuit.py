"""`tv-lens circuit`: what reads a task vector, edge by edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tv_lens.cli.application import DEMO_MODEL, Debug, Model, Seed, Tasks, TemplateName, app, template_called
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, output, stage_printer
from tv_lens.errors import unknown

_EPILOG = """[bold]Examples[/bold]

One task, quickly:  [cyan]tv-lens circuit -t present-past --size demo[/cyan]

Several tasks, compared:  [cyan]tv-lens circuit -t present-past -t singular-plural --edges 200[/cyan]

At a layer of your choice:  [cyan]tv-lens circuit -m ./mine -t pairs.csv --layer 12 --out found[/cyan]"""


@app.command(epilog=_EPILOG)
def circuit(
    task: Tasks,
    model: Model = DEMO_MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the page and the circuits go.")] = Path(
        "circuits"
    ),
    layer: Annotated[
        int | None, typer.Option(help="The layer where the vectors are injected.", show_default="where they work best")
    ] = None,
    edges: Annotated[int, typer.Option(help="How many of the strongest edges make a circuit.")] = 100,
    shots: Annotated[int, typer.Option("--shots", "-k", help="Demonstrations in the prompts behind a vector.")] = 10,
    size: Annotated[
        str, typer.Option("--size", metavar="demo|standard|full", help="How much is measured.")
    ] = "standard",
    n: Annotated[
        int | None, typer.Option("--n", help="Queries on which edges are measured.", show_default="the size's")
    ] = None,
    seed: Seed = 0,
    template: TemplateName = None,
    debug: Debug = False,
) -> None:
    """Find the edges that decode tasks' vectors, test them on held-out queries, and draw them."""
    with errors_shown(debug):
        library, circuits = loaded("tv_lens.tasks"), loaded("tv_lens.experiments.vector_circuits")
        loaded("tv_lens.experiments.folders").check_folder(out)
        if size not in circuits.CIRCUIT_SIZES:
            raise unknown("size", size, circuits.CIRCUIT_SIZES)
        named = [library.task(one) for one in task]
        say = stage_printer()
        say(f"loading {model}")
        hooked = loaded("tv_lens.model.hooked_model").load(model)
        result = circuits.decoding_circuits(
            hooked,
            named,
            layer=layer,
            edges=edges,
            shots=shots,
            size=size,
            n=n,
            seed=seed,
            template=template_called(template),
            say=say,
        )
        say("writing the page")
        numbers = result.save(out)
        written = loaded("tv_lens.experiments").report(result).save(out / "circuits.html")
        output().print()
        for one in result.found.values():
            output().print(one.sentence(), highlight=False, markup=False)
        output().print()
        typer.echo(f"Page:     {written}")
        typer.echo(f"Numbers:  {numbers}")
        typer.echo(f"Circuits: {written.parent}/*.json, *.graph.json, *.graphml, *.dot")
