"""`tv-lens emergence`: what networks trained from scratch encode and compute over their training, as pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tv_lens.cli.commands import Debug, _escaped, _out, _said, _teller, app

if TYPE_CHECKING:
    from tv_lens.experiments.training.findings import Findings

_EPILOG = """[bold]Examples[/bold]

A run that comes with the package, all its seeds on one page:  [cyan]tv-lens emergence --run embedded:bases4[/cyan]

All that come with it, and a page over them:  [cyan]tv-lens emergence --run embedded --out emergence[/cyan]

Your own, with another seed beside it:  [cyan]tv-lens emergence --run runs/bases4-0 --run runs/bases4-1[/cyan]

The same command again goes on where it was stopped."""

EMBEDDED = "embedded"


@app.command(epilog=_EPILOG)
def emergence(
    run: Annotated[list[str], typer.Option("--run", metavar="DIR|embedded[:NAME]", show_default=False,
                   help="A training run's folder, or one that comes with the package; again for further seeds of its "
                        "family.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR",
                                      help="Where the pages and their numbers go.")] = Path("emergence"),
    size: Annotated[str, typer.Option("--size", metavar="tiny|laptop|full", help="How much is measured.")] = "laptop",
    seed: Annotated[list[int] | None,
        typer.Option("--seed", help="Of an embedded run; again for more.", show_default="all there are")] = None,
    draw: Annotated[int, typer.Option("--draw", help="The episodes that are measured on.")] = 0,
    cache: Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Keep finished measurements there.",
                     show_default="OUT/run")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run.", show_default="a GPU if there is one")] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Watch networks learn to tell tasks apart: losses, decodability, patches and heads over training."""
    with _said(debug):
        from tv_lens.errors import unknown
        from tv_lens.experiments.folders import check_folder
        from tv_lens.experiments.training.findings import Findings
        from tv_lens.experiments.training.measure import SIZES
        from tv_lens.experiments.training.measure import emergence as watch
        from tv_lens.experiments.training.page import write_index, write_page

        cache = out / "run" if cache is None else cache
        for folder in (out, cache):
            check_folder(folder)
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        pages = _asked(run, seed)
        say = _teller()
        found: dict[str, list[Findings]] = {}
        for name, sources in pages.items():
            for source, own in sources:
                label = f"{source}-{own}" if Path(source).name == source else Path(source).resolve().name
                result = watch(source, seed=own, size=size, draw=draw, run=cache / f"{label} {size} {draw}",
                               device=device,
                               say=_labelled(say, label))  # fmt: skip
                found.setdefault(name, []).append(Findings(result))
        alone = len(found) == 1
        files = {name: "emergence.html" if alone else f"{name}.html" for name in found}
        say("writing the page" if alone else "writing the pages")
        for name, runs in found.items():
            written = write_page(runs, out / files[name])
            _tell(runs)
            typer.echo(f"Page:    {written}\nNumbers: {written.with_suffix('.json')}\n")
        if not alone:
            typer.echo(f"All:     {write_index(found, files, out)}")


def _asked(runs: Sequence[str], seeds: Sequence[int] | None) -> dict[str, list[tuple[str, int]]]:
    """What stands on which page: (source, seed), by the page's name."""
    from tv_lens.errors import EmptySelection, InvalidArgument, unknown
    from tv_lens.lab import embedded

    pages: dict[str, list[tuple[str, int]]] = {}
    listed = embedded.runs()
    folders = [one for one in runs if one.partition(":")[0] != EMBEDDED]
    if seeds and folders:
        raise InvalidArgument("The folder of a training run holds one seed.",
                              got=f"--run {folders[0]} --seed {seeds[0]}",
                              do="leave --seed out, and name each seed's folder with a --run of its own.")  # fmt: skip
    for folder in folders:
        if not (Path(folder) / "config.json").is_file():
            raise InvalidArgument("This is not the folder of a training run.", got=folder,
                                  allowed="a folder that `tv-lens train` wrote",
                                  do=f"for runs that come with the package: --run {EMBEDDED} or "
                                     f"{EMBEDDED}:NAME.")  # fmt: skip
    if folders:
        pages[Path(folders[0]).resolve().name] = [(str(Path(folder).resolve()), 0) for folder in folders]
    for one in runs:
        kind, _, name = one.partition(":")
        if kind != EMBEDDED:
            continue
        names = sorted(set(listed.name))
        if not names:
            raise EmptySelection("No run comes with this installation.", got=one,
                                 do="train one: tv-lens train --preset small --out DIR")
        if name and name not in names:
            raise unknown("embedded run", name, names)
        for each in [name] if name else names:
            known = sorted(listed[listed.name == each].seed.tolist())
            missing = [seed for seed in seeds or () if seed not in known]
            if missing and name:
                raise InvalidArgument(f"{each!r} was not trained from this seed.", got=f"--seed {missing[0]}",
                                      allowed=", ".join(map(str, known)))
            chosen = [seed for seed in (known if seeds is None else dict.fromkeys(seeds)) if seed in known]
            if chosen:
                pages.setdefault(each, [(each, seed) for seed in chosen])
    if not pages:
        raise EmptySelection("No embedded run was trained from this seed.",
                             got=f"--seed {', '.join(map(str, seeds or ()))}")
    return pages


def _labelled(say: Callable[[str], None], label: str) -> Callable[[str], None]:
    return lambda line: say(f"{label}: {line}")


def _tell(runs: Sequence[Findings]) -> None:
    """The verdicts, a claim a line."""
    from tv_lens.experiments.training.claims import claims_over

    for claim in claims_over(runs):
        _out().print(f"{_escaped(claim.figure)}: {_escaped(claim.claim)}: [bold]{claim.verdict}[/bold]\n    "
                     f"{_escaped(claim.ours)}",
                     highlight=False)  # fmt: skip
