"""`tv-lens`: the same verbs from a shell.

Heavy imports wait inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tv_lens.errors import ModelLoadError, TVLensError, closest, unknown

if TYPE_CHECKING:
    from tv_lens.experiments import LensResult
    from tv_lens.tasks.templates import Template

DEMO_MODEL = "smollm2-135m"
DEMO_TASKS = ("present-past", "singular-plural", "capitalize", "country-capital")
DEMO_FAMILY = "verbs"
_FAILED, _STOPPED = 2, 130

app = typer.Typer(
    name="tv-lens", add_completion=False, no_args_is_help=True, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False,
    help="Where a model encodes a task, the vector that carries it, and what patching it does.",
    epilog="""[bold]Examples[/bold]

The main job on the embedded model:  [cyan]tv-lens demo[/cyan]

One task, in depth:  [cyan]tv-lens lens --task antonym --out found[/cyan]

Your model, your pairs:  [cyan]tv-lens lens --model ./mine --task pairs.json[/cyan]

What guessing would score:  [cyan]tv-lens audit --task antonym[/cyan]""",
)  # fmt: skip

_LENS_EPILOG = """[bold]Examples[/bold]

Two tasks, quickly:  [cyan]tv-lens lens -t present-past -t past-present --size demo[/cyan]

Your pairs, fewer shots:  [cyan]tv-lens lens -m gpt2 -t pairs.csv --shots 5[/cyan]

Resumable, should it be stopped:  [cyan]tv-lens lens -t antonym --size full --run kept[/cyan]

Another template:  [cyan]tv-lens lens -m ./llama.gguf -t antonym --template arrow[/cyan]

Tasks over the same inputs, too:  [cyan]tv-lens lens -t capitalize --family verbs[/cyan]"""

Tasks = Annotated[list[str], typer.Option("--task", "-t", metavar="NAME|FILE", show_default=False,
                  help="A built-in task, or a file of pairs (.json, .jsonl, .csv, .tsv); repeatable.")]  # fmt: skip
Model = Annotated[str, typer.Option("--model", "-m", metavar="MODEL",
                  help="An embedded model, a folder, a .gguf file or a hub name; see `tv-lens models`.")]  # fmt: skip
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR",
                help="Where the report, its numbers and the vectors go.")]  # fmt: skip
Seed = Annotated[int, typer.Option("--seed", help="Every draw.")]
TemplateName = Annotated[str | None, typer.Option("--template", metavar="qa|arrow|io",
                         show_default="the task's own: qa", help="The text around inputs and answers.")]  # fmt: skip
RunFolder = Annotated[Path | None, typer.Option("--run", metavar="DIR", show_default=False,
                      help="Keep finished work there; the same command continues where this one stopped.")]  # fmt: skip
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]tv-lens demo --out report[/cyan]")
def demo(out: Out = Path("report"), seed: Seed = 0, run: RunFolder = None, debug: Debug = False) -> None:
    """Run the main job on the embedded model: four tasks, a few minutes, one report."""
    with _said(debug):
        result = _lens(DEMO_MODEL, list(DEMO_TASKS), out, size="demo", seed=seed, family=DEMO_FAMILY, run=run)
        _finish(result, out)


@app.command(epilog=_LENS_EPILOG)
def lens(
    task: Tasks,
    model: Model = DEMO_MODEL,
    out: Out = Path("report"),
    shots: Annotated[int, typer.Option("--shots", "-k", help="Demonstrations in a prompt.")] = 10,
    size: Annotated[str, typer.Option("--size", metavar="demo|standard|full", help="How much is run.")] = "standard",
    n: Annotated[int | None, typer.Option("--n", help="Test queries per task.", show_default="the size's")] = None,
    seed: Seed = 0,
    template: TemplateName = None,
    family: Annotated[str | None, typer.Option("--family", metavar="NAME", show_default=False,
                      help="Read decodability for a family of tasks over the same inputs, too: verbs, …")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub name: branch, tag or commit.",
                        show_default=False)] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str | None, typer.Option(help="Where to run.", show_default="a GPU if there is one")] = None,
    run: RunFolder = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Find where tasks are encoded, extract their vectors, test them, and write a report."""
    with _said(debug):
        result = _lens(model, task, out, shots=shots, size=size, n=n, seed=seed, template=_template(template),
                       family=family, run=run, loading=dict(revision=revision, dtype=dtype, device=device))  # fmt: skip
        _finish(result, out)


@app.command()
def tasks(debug: Debug = False) -> None:
    """List the built-in tasks."""
    with _said(debug):
        from tv_lens import tasks as library

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("task", "pairs", "example", "what it is"):
            table.add_column(heading, justify="right" if heading == "pairs" else "left",
                             no_wrap=heading in ("task", "example"))  # fmt: skip
        for name in library.names():
            one = library.task(name)
            pair = one.items[0]
            asked = pair.input if len(pair.input) <= 32 else pair.input[:31] + "…"  # sentences
            table.add_row(name, str(len(one)), f"{asked} → {pair.output}", one.description)
        _out().print(table)
        _out().print("\nA file of pairs is a task, too: --task my_pairs.json (or .jsonl, .csv, .tsv).",
                     highlight=False)  # fmt: skip


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]tv-lens audit --task antonym --task my_pairs.csv[/cyan]")
def audit(task: Tasks, model: Model = DEMO_MODEL, template: TemplateName = None, debug: Debug = False) -> None:
    """Show what guessing would score on tasks, and how a model's tokenizer cuts their answers."""
    with _said(debug):
        from tv_lens import tasks as library

        found, tokenizer = [library.task(one) for one in task], _tokenizer(model)
        audits = [one.audit(tokenizer, _template(template)) for one in found]
        table = Table(box=None, header_style="bold", pad_edge=False, title_justify="left",
                      title=_escaped(f"Answers as the tokenizer of {model} cuts them"))  # fmt: skip
        for heading in ("task", "pairs", "one token", "ambiguous\nfirst token", "always\nguessing", "which",
                        "copying\nthe input"):  # fmt: skip
            table.add_column(heading, justify="left" if heading in ("task", "which") else "right")
        for one in audits:
            shares = (one.single_token_share, one.ambiguous_first_token_share, one.majority_rate, one.copy_rate)
            single, ambiguous, majority, copied = (f"{share:.0%}" for share in shares)
            table.add_row(_escaped(one.task), str(one.n), single, ambiguous, majority, _escaped(one.majority_answer),
                          copied)  # fmt: skip
        _out().print(table)
        for one in audits:
            for caution in one.cautions:
                _out().print(f"{one.task}: {caution}", highlight=False, markup=False)


@app.command()
def models(debug: Debug = False) -> None:
    """List the embedded models, and say what else --model takes."""
    with _said(debug):
        from tv_lens.loading.weights import EMBEDDED

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("embedded model", "licence", "state", "what it is"):
            table.add_column(heading, no_wrap=heading == "embedded model")
        for name, one in EMBEDDED.items():
            table.add_row(name, one.licence, _state(name), one.description)
        _out().print(table)
        _out().print(
            "\n--model also takes\n"
            "  a folder       with config.json, *.safetensors and a tokenizer, as save_pretrained writes it\n"
            "  a .gguf file   dequantised once into the cache\n"
            "  a hub name     such as gpt2 or owner/name; the only one that touches the network\n"
            "In Python, tv.load also takes a Hugging Face model and a TransformerBridge.", highlight=False,
        )  # fmt: skip


def main() -> None:
    """The entry point of `tv-lens`."""
    app(prog_name="tv-lens")


# ------------------------------------------------------------------------------------------------------- what runs


def _lens(
    model: str, tasks: list[str], out: Path, *, family: str | None = None, loading: dict[str, Any] | None = None,
    **asked: Any,
) -> LensResult:  # fmt: skip
    """The main job with a line as each stage begins; what can be refused is refused before the model is loaded."""
    from dataclasses import replace

    from tv_lens import tasks as library
    from tv_lens.experiments import SIZES
    from tv_lens.experiments import lens as look
    from tv_lens.experiments.folders import check_folder
    from tv_lens.model.hooked_model import load

    for folder in (out, asked["run"]):
        if folder is not None:
            check_folder(folder)
    if asked["size"] not in SIZES:
        raise unknown("size", asked["size"], SIZES)
    for one in tasks:
        library.task(one)
    matched = None if family is None else library.family(family)
    options = _loading(loading or {})
    say = _teller()
    say(f"loading {model}")
    loaded = load(model, **options)
    result = look(loaded, tasks, matched=matched, say=say, **asked)
    say("writing the report")
    return replace(result, source=model)


def _teller() -> Callable[[str], None]:
    """Tells stages as they begin, with the seconds since now; what it is told is plain text."""
    started = time.perf_counter()

    def say(line: str) -> None:
        _err().print(f"[dim]{time.perf_counter() - started:5.0f} s[/dim]  {_escaped(line)}", highlight=False)

    return say


def _loading(options: dict[str, Any]) -> dict[str, Any]:
    """Loading options as `load` takes them."""
    from tv_lens.loading.hugging_face import floating_dtype

    return {**options, "dtype": floating_dtype(options["dtype"])} if "dtype" in options else options


def _finish(result: LensResult, out: Path) -> None:
    """Writes the report and tells the headline numbers, with the audit beside them, and where the report is."""
    from tv_lens.experiments import report

    numbers = result.save(out)
    written = report(result, out=out).save(out / "report.html")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("task", "layer", "zero-shot", "vector [95% interval]", "random\nvector",
                    f"{result.settings['shots']}-shot", "always\nguessing", "answers of\none token"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=True)
    for name, vector in result.vectors.items():
        shown = ("zero-shot", "vector", "random vector", "few-shot")
        zero, found, random, few = (result.accuracy(name, key) for key in shown)
        known = result.audits[name]
        table.add_row(
            _escaped(name), str(vector.site.layer), f"{zero['mean']:.2f}",
            f"[bold]{found['mean']:.2f}[/bold] \\[{found['low']:.2f}, {found['high']:.2f}]", f"{random['mean']:.2f}",
            f"{few['mean']:.2f}", f"{known.majority_rate:.2f}", f"{known.single_token_share:.0%}",
        )  # fmt: skip
    _out().print()
    _out().print("First-token accuracy on test queries, and what guessing would score", style="bold")
    _out().print(table)
    _out().print()
    _out().print(result.answer(), highlight=False, markup=False)
    _out().print()
    typer.echo(f"Report:  {written}")
    typer.echo(f"Numbers: {numbers}")
    typer.echo(f"Vectors: {written.with_name('vectors')}")


def _template(name: str | None) -> Template | None:
    from tv_lens.tasks import ARROW, IO, QA

    known = {one.name: one for one in (QA, ARROW, IO)}
    if name is not None and name not in known:
        raise unknown("template", name, known, do="templates of your own: in Python, tv.tasks.Template(...)")
    return None if name is None else known[name]


def _tokenizer(model: str) -> Any:
    """A model's tokenizer, without its weights."""
    from transformers import AutoTokenizer

    from tv_lens.loading.weights import EMBEDDED, locate

    place = locate(model)
    source, local = str(place.folder or place.name), place.folder is not None
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=local)
    except Exception as error:  # transformers raises what it likes
        near = closest(model, EMBEDDED, n=1)
        do = "check the name or the folder; a hub name needs a connection, once."
        raise ModelLoadError(
            f"Could not load the tokenizer of {model}.",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0],
            do=f"did you mean {near[0]!r}?" if near else do,
        ) from error


def _state(name: str) -> str:
    """Where an embedded model is now."""
    import importlib.util

    from tv_lens.loading.weights import EMBEDDED, cache_root

    if (cache_root() / name).is_dir():
        return "unpacked in the cache"
    if importlib.util.find_spec(EMBEDDED[name].package) is not None:
        return "installed; unpacked when first loaded"
    return f"not installed: {EMBEDDED[name].install}"


# --------------------------------------------------------------------------------------------------------- speaking


def _out() -> Console:
    # Made when needed: tests and pipes swap the streams. Wide enough for a table when there is no terminal to ask.
    console = Console()
    return console if console.is_terminal else Console(width=130)


def _err() -> Console:
    return Console(stderr=True, soft_wrap=True)


@contextmanager
def _said(debug: bool) -> Iterator[None]:
    """Errors of tv_lens as one block without a traceback, and exit code 2; an interrupt as a line."""
    try:
        yield
    except TVLensError as error:
        if debug:
            raise
        first, *rest = str(error).split("\n")
        _err().print(f"[bold red]Error[/bold red] {_escaped(first)}", highlight=False)
        for line in rest:
            _err().print(_escaped(line), highlight=False)
        raise typer.Exit(_FAILED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        _err().print("Stopped. No file is half written.", highlight=False)
        raise typer.Exit(_STOPPED) from None


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
