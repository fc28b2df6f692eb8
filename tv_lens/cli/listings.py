"""`tv-lens tasks`, `audit` and `models`: lists of tasks and models, and what guessing would score."""

from __future__ import annotations

import importlib.util
from typing import Any

from rich.markup import escape
from rich.table import Table

from tv_lens.cli.application import DEMO_MODEL, Debug, Json, Model, Revision, Tasks, TemplateName, app, template_called
from tv_lens.cli.loader import loaded
from tv_lens.cli.printing import errors_shown, output, print_json
from tv_lens.errors import ModelLoadError, closest


@app.command()
def tasks(json: Json = False, debug: Debug = False) -> None:
    """List the built-in tasks."""
    with errors_shown(debug):
        library = loaded("tv_lens.tasks")
        if json:
            named = [library.task(name) for name in library.names()]
            print_json([{"task": one.name, "pairs": len(one), "description": one.description} for one in named])
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("task", "pairs", "example", "what it is"):
            table.add_column(
                heading, justify="right" if heading == "pairs" else "left", no_wrap=heading in ("task", "example")
            )
        for name in library.names():
            one = library.task(name)
            pair = one.items[0]
            shown = pair.input if len(pair.input) <= 32 else pair.input[:31] + "…"  # sentences
            table.add_row(name, str(len(one)), f"{shown} → {pair.output}", one.description)
        output().print(table)
        output().print(
            "\nA file of pairs is a task, too: --task my_pairs.json (or .jsonl, .csv, .tsv).", highlight=False
        )


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]tv-lens audit --task antonym --task my_pairs.csv[/cyan]")
def audit(
    task: Tasks,
    model: Model = DEMO_MODEL,
    template: TemplateName = None,
    revision: Revision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what guessing would score on tasks, and how a model's tokenizer cuts their answers."""
    with errors_shown(debug):
        named, tokenizer = [loaded("tv_lens.tasks").task(one) for one in task], _tokenizer(model, revision)
        audits = [one.audit(tokenizer, template_called(template)) for one in named]
        if json:
            print_json([one.to_dict() for one in audits])
            return
        table = Table(
            box=None,
            header_style="bold",
            pad_edge=False,
            title_justify="left",
            title=escape(f"Answers as the tokenizer of {model} cuts them"),
        )
        for heading in (
            "task",
            "pairs",
            "one token",
            "ambiguous\nfirst token",
            "always\nguessing",
            "which",
            "copying\nthe input",
        ):
            table.add_column(heading, justify="left" if heading in ("task", "which") else "right")
        for one in audits:
            shares = (one.single_token_share, one.ambiguous_first_token_share, one.majority_rate, one.copy_rate)
            single, ambiguous, majority, copied = (f"{share:.0%}" for share in shares)
            table.add_row(
                escape(one.task), str(one.n), single, ambiguous, majority, escape(one.majority_answer), copied
            )
        output().print(table)
        for one in audits:
            for caution in one.cautions:
                output().print(f"{one.task}: {caution}", highlight=False, markup=False)


@app.command()
def models(json: Json = False, debug: Debug = False) -> None:
    """List the embedded models, and what else --model takes."""
    with errors_shown(debug):
        weights = loaded("tv_lens.loading.weights")
        if json:
            known = weights.EMBEDDED.items()
            print_json([{"model": name, "licence": one.licence, "description": one.description} for name, one in known])
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("embedded model", "licence", "state", "what it is"):
            table.add_column(heading, no_wrap=heading == "embedded model")
        for name, one in weights.EMBEDDED.items():
            table.add_row(name, one.licence, _state(name), one.description)
        output().print(table)
        output().print(
            "\n--model also takes\n"
            "  a folder       with config.json, *.safetensors and a tokenizer, as save_pretrained writes it\n"
            "  a .gguf file   dequantised once into the cache\n"
            "  a hub name     such as gpt2 or owner/name; the only one that touches the network\n"
            "In Python, tv.load also takes a Hugging Face model and a TransformerBridge.",
            highlight=False,
        )


def _tokenizer(model: str, revision: str | None = None) -> Any:
    """A model's tokenizer, loaded without its weights."""
    from transformers import AutoTokenizer

    weights = loaded("tv_lens.loading.weights")
    place = weights.locate(model)
    source, local = str(place.folder or place.name), place.folder is not None
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=local, revision=revision or "main")
    except Exception as error:  # transformers may raise anything
        near = closest(model, weights.EMBEDDED, n=1)
        do = "check the name or the folder; a hub name needs a connection, once."
        raise ModelLoadError(
            f"Could not load the tokenizer of {model}.",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0],
            do=f"did you mean {near[0]!r}?" if near else do,
        ) from error


def _state(name: str) -> str:
    """Whether an embedded model is unpacked, installed or neither."""
    weights = loaded("tv_lens.loading.weights")
    if (weights.cache_root() / name).is_dir():
        return "unpacked in the cache"
    if importlib.util.find_spec(weights.EMBEDDED[name].package) is not None:
        return "installed; unpacked when first loaded"
    return f"not installed: {weights.EMBEDDED[name].install}"
