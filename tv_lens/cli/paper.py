"""`tv-lens paper`: the paper's experiments on a language model, and the page that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tv_lens.cli.application import (
    DEMO_MODEL,
    Debug,
    Device,
    Dtype,
    FolderInOut,
    Json,
    Model,
    Quiet,
    Revision,
    Seed,
    app,
    loading_options,
)
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, going_on, output, print_json, stage_printer
from tv_lens.cli.threads import use_cores

if TYPE_CHECKING:
    from tv_lens.experiments import PaperResult

_EPILOG = """[bold]Examples[/bold]

A few minutes, on the embedded model:  [cyan]tv-lens paper --size tiny --out paper[/cyan]

Real sentences:  [cyan]tv-lens paper --sentences en_ewt-ud-train.conllu --out paper[/cyan]

Checkpoints beside it:  [cyan]tv-lens paper -m EleutherAI/pythia-160m --also EleutherAI/pythia-160m@step1000[/cyan]

The same command continues where it was stopped."""

Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also", metavar="MODEL[@REVISION]", show_default=False, help="A further model or checkpoint; repeatable."
    ),
]
Finetune = Annotated[
    int | None,
    typer.Option(
        "--finetune",
        metavar="STEPS",
        min=0,
        show_default="the size's own",
        help="Steps of LoRA for each variant; 0 leaves finetuning out.",
    ),
]


@app.command(epilog=_EPILOG)
def paper(
    model: Model = DEMO_MODEL,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the page and unfinished work go.")
    ] = Path("paper"),
    size: Annotated[str, typer.Option("--size", metavar="tiny|laptop|paper", help="How much is measured.")] = "tiny",
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            metavar="pos|bitwise",
            help="A family of tasks; repeatable; both if none is given.",
            show_default=False,
        ),
    ] = None,
    sentences: Annotated[
        str | None,
        typer.Option(
            "--sentences",
            metavar="FILE|ptb",
            show_default="the library's own",
            help="A CoNLL-U file of real sentences, or NLTK's Penn Treebank sample.",
        ),
    ] = None,
    also: Also = None,
    finetune: Finetune = None,
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = "float32",
    device: Device = None,
    folder: FolderInOut = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the paper's experiments on a language model, and write one page: claim by claim, with controls."""
    folder = out / "run" if folder is None else folder
    with errors_shown(debug, going_on(folder)):
        measure = loaded("tv_lens.experiments.language_models.measure")
        for each in (out, folder):
            loaded("tv_lens.experiments.folders").check_folder(each)
        say = stage_printer(quiet)
        use_cores(say)
        result = measure.paper(
            model,
            size=measure.size_called(size, finetune),
            families=tuple(family or measure.FAMILIES),
            sentences=sentences,
            others=also or (),
            seed=seed,
            folder=folder,
            say=say,
            loading=loading_options(revision=revision, dtype=dtype, device=device),
        )
        _finish(result, out, json)


def _finish(result: PaperResult, out: Path, json: bool) -> None:
    """Writes the numbers and the page; prints the verdicts, the models that failed, and where the page is."""
    numbers = result.save(out)
    written = loaded("tv_lens.experiments").report(result).save(out / "paper.html")
    if json:
        print_json(numbers)
        return
    for claim in result.claims():
        output().print(
            f"{claim.figure}, {claim.family}: {claim.claim}: [bold]{claim.verdict}[/bold]\n    {escape(claim.ours)}",
            highlight=False,
        )
    for name, why in ({} if result.comparison is None else result.comparison.failed).items():
        output().print(f"[yellow]{escape(name)} could not be measured:[/yellow] {escape(why)}", highlight=False)
    typer.echo(f"\nPage:    {written}\nNumbers: {numbers}")
