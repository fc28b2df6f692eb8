"""`tv-lens paper`: the paper's experiments on a language model, and the page that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tv_lens.cli.commands import DEMO_MODEL, Debug, Model, Seed, _escaped, _loading, _out, _said, _teller, app

_EPILOG = """[bold]Examples[/bold]

A few minutes, on the embedded model:  [cyan]tv-lens paper --size tiny --out paper[/cyan]

Real sentences:  [cyan]tv-lens paper --sentences en_ewt-ud-train.conllu --out paper[/cyan]

Checkpoints beside it:  [cyan]tv-lens paper -m EleutherAI/pythia-160m --also EleutherAI/pythia-160m@step1000[/cyan]

The same command again goes on where it was stopped."""


@app.command(epilog=_EPILOG)
def paper(
    model: Model = DEMO_MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the page and the unfinished work go.")] = Path("paper"),
    size: Annotated[str, typer.Option("--size", metavar="tiny|laptop|paper", help="How much is run.")] = "tiny",
    family: Annotated[list[str] | None, typer.Option("--family", metavar="pos|bitwise", help="Repeatable; both if none.",
                      show_default=False)] = None,
    sentences: Annotated[str | None, typer.Option("--sentences", metavar="FILE|ptb", show_default="the library's own",
                         help="A CoNLL-U file of real sentences, or NLTK's Penn Treebank sample.")] = None,
    also: Annotated[list[str] | None, typer.Option("--also", metavar="MODEL[@REVISION]", show_default=False,
                    help="A further model or checkpoint; repeatable.")] = None,
    finetune: Annotated[int | None, typer.Option("--finetune", metavar="STEPS", min=0, show_default="the size's own",
                        help="Steps of LoRA for each variant; 0 leaves finetuning out.")] = None,
    seed: Seed = 0,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str | None, typer.Option(help="Where to run.", show_default="a GPU if there is one")] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Run the paper's experiments on a language model, and write one page: claim by claim, with controls."""
    with _said(debug):
        from tv_lens.experiments import report
        from tv_lens.experiments.folders import check_folder
        from tv_lens.experiments.language_models.measure import FAMILIES, size_called
        from tv_lens.experiments.language_models.measure import paper as run

        check_folder(out)
        say = _teller()
        result = run(model, size=size_called(size, finetune), families=tuple(family or FAMILIES), sentences=sentences, others=also or (), seed=seed,
                     loading=_loading(dict(dtype=dtype, device=device)), run=out / "run", say=say)  # fmt: skip
        numbers = result.save(out)
        written = report(result).save(out / "paper.html")
        for claim in result.claims():
            _out().print(f"{claim.figure}, {claim.family}: {claim.claim}: [bold]{claim.verdict}[/bold]\n    {_escaped(claim.ours)}",
                         highlight=False)  # fmt: skip
        for name, why in ({} if result.comparison is None else result.comparison.failed).items():
            _out().print(f"[yellow]{_escaped(name)} could not be measured:[/yellow] {_escaped(why)}", highlight=False)
        typer.echo(f"\nPage:    {written}\nNumbers: {numbers}")
