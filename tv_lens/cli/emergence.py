"""`tv-lens emergence`: what networks trained from scratch encode and compute over their training, as pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tv_lens.cli.application import Debug, Device, FolderInOut, Json, Quiet, Seed, app
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, going_on, output, print_json, stage_printer
from tv_lens.cli.threads import use_cores
from tv_lens.errors import EmptySelection, InvalidArgument, unknown

if TYPE_CHECKING:
    from tv_lens.experiments.training.findings import Findings

_EPILOG = """[bold]Examples[/bold]

One embedded network, all its seeds on one page:  [cyan]tv-lens emergence --network embedded:bases4[/cyan]

All embedded networks, and a page over them:  [cyan]tv-lens emergence --network embedded --out emergence[/cyan]

Your own, two seeds on one page:  [cyan]tv-lens emergence --network networks/a-0 --network networks/a-1[/cyan]

The same command continues where it was stopped."""

EMBEDDED = "embedded"
Source = tuple[str, int]  # a training folder or the name of an embedded network, and its seed


@app.command(epilog=_EPILOG)
def emergence(
    network: Annotated[
        list[str],
        typer.Option(
            "--network",
            metavar="DIR|embedded[:NAME]",
            show_default=False,
            help="The folder of a training run, or a network that comes with the package; repeatable, for further "
            "seeds.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pages and their numbers go.")
    ] = Path("emergence"),
    size: Annotated[str, typer.Option("--size", metavar="tiny|laptop|full", help="How much is measured.")] = "laptop",
    network_seed: Annotated[
        list[int] | None,
        typer.Option("--network-seed", show_default="all there are", help="A seed of an embedded network; repeatable."),
    ] = None,
    seed: Seed = 0,
    folder: FolderInOut = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Watch networks learn to distinguish tasks: losses, decodability, patches and heads over training."""
    folder = out / "run" if folder is None else folder
    with errors_shown(debug, going_on(folder)):
        training = loaded("tv_lens.experiments.training.measure")
        for each in (out, folder):
            loaded("tv_lens.experiments.folders").check_folder(each)
        if size not in training.SIZES:
            raise unknown("size", size, training.SIZES)
        pages = _pages(network, network_seed)
        say = stage_printer(quiet)
        use_cores(say)
        by_page: dict[str, list[Findings]] = {}
        for name, sources in pages.items():
            for source, own in sources:
                label = f"{source}-{own}" if Path(source).name == source else Path(source).resolve().name
                result = training.emergence(
                    source,
                    network_seed=own,
                    size=size,
                    seed=seed,
                    device=device,
                    folder=folder / f"{label} {size} {seed}",
                    say=_labelled(say, label),
                )
                findings = loaded("tv_lens.experiments.training.findings").Findings(result)
                by_page.setdefault(name, []).append(findings)
        _finish(by_page, out, say, json)


def _finish(by_page: Mapping[str, Sequence[Findings]], out: Path, say: Callable[[str], None], json: bool) -> None:
    """Writes a page per name, and an index if there are several; prints the verdicts and where the pages are."""
    page = loaded("tv_lens.experiments.training.page")
    alone = len(by_page) == 1
    files = {name: "emergence.html" if alone else f"{name}.html" for name in by_page}
    say("writing the page" if alone else "writing the pages")
    for name, networks in by_page.items():
        written = page.write_page(networks, out / files[name])
        if json:
            print_json(written.with_suffix(".json"))
            continue
        _print_claims(networks)
        typer.echo(f"Page:    {written}\nNumbers: {written.with_suffix('.json')}\n")
    if not alone:
        index = page.write_index(by_page, files, out)
        typer.echo(f"All:     {index}", err=json)


def _pages(networks: Sequence[str], seeds: Sequence[int] | None) -> dict[str, list[Source]]:
    """The networks of each page, by the page's name."""
    folders = [one for one in networks if one.partition(":")[0] != EMBEDDED]
    pages: dict[str, list[Source]] = {}
    if folders:
        _check_folders(folders, seeds)
        pages[Path(folders[0]).resolve().name] = [(str(Path(folder).resolve()), 0) for folder in folders]
    for one in networks:
        if one not in folders:
            pages = {**_embedded_pages(one, seeds), **pages}
    if not pages:
        raise EmptySelection(
            "No embedded network was trained from this seed.", got=f"--network-seed {', '.join(map(str, seeds or ()))}"
        )
    return pages


def _check_folders(folders: Sequence[str], seeds: Sequence[int] | None) -> None:
    if seeds:
        raise InvalidArgument(
            "The folder of a training run holds one seed.",
            got=f"--network {folders[0]} --network-seed {seeds[0]}",
            do="leave --network-seed out, and name each seed's folder with a --network of its own.",
        )
    for folder in folders:
        if not (Path(folder) / "config.json").is_file():
            raise InvalidArgument(
                "This is not the folder of a training run.",
                got=folder,
                allowed="a folder that `tv-lens train` wrote",
                do=f"for networks that come with the package: --network {EMBEDDED} or {EMBEDDED}:NAME.",
            )


def _embedded_pages(network: str, seeds: Sequence[int] | None) -> dict[str, list[Source]]:
    """The pages of `embedded` or `embedded:NAME`: one page per network, with those of the given seeds that exist."""
    listed = loaded("tv_lens.lab.embedded").networks()
    names, name = sorted(set(listed.name)), network.partition(":")[2]
    if not names:
        raise EmptySelection(
            "No network comes with this installation.",
            got=network,
            do="train one: tv-lens train --preset small --out DIR",
        )
    if name and name not in names:
        raise unknown("embedded network", name, names)
    pages = {}
    for each in [name] if name else names:
        known = sorted(listed[listed.name == each].seed.tolist())
        missing = [seed for seed in seeds or () if seed not in known]
        if missing and name:
            raise InvalidArgument(
                f"{each!r} was not trained from this seed.",
                got=f"--network-seed {missing[0]}",
                allowed=", ".join(map(str, known)),
            )
        chosen = [seed for seed in (known if seeds is None else dict.fromkeys(seeds)) if seed in known]
        if chosen:
            pages[each] = [(each, seed) for seed in chosen]
    return pages


def _labelled(say: Callable[[str], None], label: str) -> Callable[[str], None]:
    return lambda line: say(f"{label}: {line}")


def _print_claims(networks: Sequence[Findings]) -> None:
    """The verdicts, one claim per line."""
    for claim in loaded("tv_lens.experiments.training.claims").claims_over(networks):
        output().print(
            f"{escape(claim.figure)}: {escape(claim.claim)}: [bold]{claim.verdict}[/bold]\n    {escape(claim.ours)}",
            highlight=False,
        )
