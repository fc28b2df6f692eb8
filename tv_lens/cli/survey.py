"""`tv-lens demo` and `tv-lens survey`: the survey of a model on some tasks, and its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tv_lens.cli.application import (
    DEMO_MODEL,
    Debug,
    Device,
    Dtype,
    Folder,
    Json,
    Model,
    Out,
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
    from tv_lens.experiments import TaskSurvey

DEMO_TASKS = ("present-past", "singular-plural", "capitalize", "country-capital")
DEMO_FAMILY = "verbs"

_EPILOG = """[bold]Examples[/bold]

Two tasks, quickly:  [cyan]tv-lens survey -t present-past -t singular-plural --size demo[/cyan]

Your pairs, fewer shots:  [cyan]tv-lens survey -m gpt2 -t pairs.csv --shots 5[/cyan]

Resumable, should it be stopped:  [cyan]tv-lens survey -t antonym --size full --folder work[/cyan]

Another template:  [cyan]tv-lens survey -m ./llama.gguf -t antonym --template arrow[/cyan]

Tasks over the same inputs, too:  [cyan]tv-lens survey -t capitalize --family verbs[/cyan]"""


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]tv-lens demo --out report[/cyan]")
def demo(
    out: Out = Path("report"),
    seed: Seed = 0,
    folder: Folder = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Survey the embedded model: four tasks, a few minutes, one report."""
    with errors_shown(debug, going_on(folder)):
        result = _surveyed(
            DEMO_MODEL, list(DEMO_TASKS), out, size="demo", seed=seed, family=DEMO_FAMILY, folder=folder, quiet=quiet
        )
        _finish(result, out, json)


@app.command(epilog=_EPILOG)
def survey(
    task: Tasks,
    model: Model = DEMO_MODEL,
    out: Out = Path("report"),
    shots: Annotated[int, typer.Option("--shots", "-k", min=1, help="Demonstrations in a prompt.")] = 10,
    size: Annotated[
        str, typer.Option("--size", metavar="demo|standard|full", help="How much is measured.")
    ] = "standard",
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Test queries per task.", show_default="the size's")
    ] = None,
    seed: Seed = 0,
    template: TemplateName = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="NAME",
            show_default=False,
            help="Also measure decodability for a family of tasks over the same inputs: verbs, …",
        ),
    ] = None,
    revision: Revision = None,
    dtype: Dtype = "float32",
    device: Device = None,
    folder: Folder = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find where tasks are encoded, extract their vectors, test them, and write a report."""
    with errors_shown(debug, going_on(folder)):
        result = _surveyed(
            model,
            task,
            out,
            shots=shots,
            size=size,
            n=n,
            seed=seed,
            template=template_called(template),
            family=family,
            folder=folder,
            quiet=quiet,
            loading=dict(revision=revision, dtype=dtype, device=device),
        )
        _finish(result, out, json)


def _surveyed(
    model: str,
    tasks: list[str],
    out: Path,
    *,
    size: str,
    family: str | None,
    folder: Path | None,
    quiet: bool,
    loading: dict[str, Any] | None = None,
    **options: Any,
) -> TaskSurvey:
    """A survey that prints a line as each stage begins; everything that can be refused is refused before loading."""
    library, experiments = loaded("tv_lens.tasks"), loaded("tv_lens.experiments")
    for each in (out, folder):
        if each is not None:
            loaded("tv_lens.experiments.folders").check_folder(each)
    if size not in experiments.SIZES:
        raise unknown("size", size, experiments.SIZES)
    for one in tasks:
        library.task(one)
    matched = None if family is None else library.family(family)
    how = loading_options(**(loading or {}))
    say = stage_printer(quiet)
    say(f"loading {model}")
    hooked = loaded("tv_lens.model.hooked_model").load(model, **how)
    use_cores(say, hooked)
    result = experiments.survey(hooked, tasks, size=size, matched=matched, folder=folder, say=say, **options)
    say("writing the report")
    return replace(result, source=model)


def _finish(result: TaskSurvey, out: Path, json: bool) -> None:
    """Writes the report; prints the main numbers with the audit beside them, and where the report is."""
    numbers = result.save(out)
    written = loaded("tv_lens.experiments").report(result, out=out).save(out / "report.html")
    if json:
        print_json(numbers)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (
        "task",
        "layer",
        "zero-shot",
        "vector [95% interval]",
        "random\nvector",
        f"{result.settings['shots']}-shot",
        "always\nguessing",
        "answers of\none token",
    ):
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=True)
    limits_text = loaded("tv_lens.experiments.records").limits_text
    for name, vector in result.vectors.items():
        shown = ("zero-shot", "vector", "random vector", "few-shot")
        zero, own, random, few = (result.accuracy(name, key) for key in shown)
        audit = result.audits[name]
        table.add_row(
            escape(name),
            str(vector.site.layer),
            f"{zero['mean']:.2f}",
            f"[bold]{own['mean']:.2f}[/bold] {escape(limits_text(own).partition(' ')[2])}",
            f"{random['mean']:.2f}",
            f"{few['mean']:.2f}",
            f"{audit.majority_rate:.2f}",
            f"{audit.single_token_share:.0%}",
        )
    output().print()
    output().print("First-token accuracy on test queries, and what guessing would score", style="bold")
    output().print(table)
    output().print()
    output().print(result.answer(), highlight=False, markup=False)
    output().print()
    typer.echo(f"Report:  {written}")
    typer.echo(f"Numbers: {numbers}")
    typer.echo(f"Vectors: {written.with_name('vectors')}")
