"""Vectors, steering and circuits of tasks whose surface says nothing, over independent pools of words.

python benchmarks/positions_vectors.py --pools 3 --circuits first second third --folder vectors

For the family of places in lists (docs/reproduction.md): what a vector does on prompts without demonstrations, what
the tasks' means do on prompts with them, which word of the list is answered instead, how alike the vectors are, and how
much of a vector's effect the strongest edges carry. Finished work is kept in the folder.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import tv_lens as tv
from tv_lens.experiments.records import interval_of, limits_text, signed_text
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.tasks.positions import BETWEEN
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.wordlists import common_words

ANSWERS = ("first", "second", "third", "other")
LAYERS, COMPARED = range(8, 30, 3), 20  # where vectors are tried; the layer at which decodability is read


def vectors_of(
    model: tv.HookedModel, task: tv.Task, options: argparse.Namespace, kept: Path
) -> dict[int, tv.TaskVector]:
    """The task's vector at every layer that is tried, and at the one where vectors are compared."""
    layers = sorted({*LAYERS, COMPARED})
    method = tv.methods.ResidualMean(shots=10, contexts=options.contexts, layers=layers)
    return method.at_layers(model, task, folder=kept / f"{task.name} contexts", progress=False)


def chosen(model: tv.HookedModel, task: tv.Task, vectors: dict[int, tv.TaskVector], kept: Path) -> tv.TaskVector:
    """The vector at the layer where it answers most development queries."""
    found = layer_sweep(
        model, task, vectors, template=task.template, n=20, folder=kept / f"{task.name} layers", progress=False
    )
    return replace(vectors[found.provenance["chosen"]], selection=found)


def print_injected(
    model: tv.HookedModel, task: tv.Task, vector: tv.TaskVector, n: int, kept: Path, other: tv.TaskVector
) -> None:
    """Exact match without demonstrations, with ten, with the vector, and with its controls."""
    found = tv.evaluate(
        model, vector, task, n=n, shots=10, other=other, folder=kept / f"{task.name} evaluation", progress=False
    ).sel(score="exact match")
    table = found.interval()
    parts = [
        f"{name} {limits_text(interval_of(table.sel(condition=name)))}" for name in found.values["condition"].values
    ]
    print(f"  {task.name}, layer {vector.site.layer}: {'; '.join(parts)}", flush=True)


def print_answered(model: tv.HookedModel, prompts: Prompts, what: str, edits: Any = ()) -> None:
    """Which word of its list is answered, by the first token."""
    places = []
    for prompt, token in zip(prompts, tv.score(model, prompts, edits, progress=False).top.tolist()):
        begins = [model.tokenizer.encode(" " + word)[0] for word in prompt.input.split(BETWEEN)]
        places.append(begins.index(token) if token in begins else len(begins))
    shares = [f"{name} {places.count(place) / len(prompts):.2f}" for place, name in enumerate(ANSWERS)]
    print(f"  {what} is answered with: {', '.join(shares)}", flush=True)


def print_alike(by_task: dict[str, dict[int, tv.TaskVector]]) -> None:
    """Cosines of the tasks' vectors, less their mean, at the layer where they are compared."""
    drawn = {name: vectors[COMPARED].direction.double() for name, vectors in by_task.items()}
    mean = torch.stack(list(drawn.values())).mean(dim=0)
    for one, other in itertools.combinations(drawn, 2):
        plain = torch.cosine_similarity(drawn[one], drawn[other], dim=0)
        centred = torch.cosine_similarity(drawn[one] - mean, drawn[other] - mean, dim=0)
        print(f"  {one}, {other}: cosine {float(plain):.3f}, {float(centred):.2f} less the mean of all", flush=True)


def print_steered(
    model: tv.HookedModel, family: tuple[tv.Task, ...], pool: int, options: argparse.Namespace, kept: Path
) -> None:
    """What the last token's replacement by a mean does to prompts with four demonstrations, task by task."""
    found = tv.experiments.steer(
        model,
        family,
        layers=(14, 20, 26),
        queries=options.n // 2,
        contexts=options.contexts,
        replicates=1,
        seed=pool,
        folder=kept / "steering",
        progress=False,
    )
    effects = found.effects()
    for layer in effects.values["layer"].values.tolist():
        for task in effects.values["task"].values.tolist():
            here = effects.sel(layer=layer, task=task)
            before = float(found.sweep.sel(condition="none", layer=layer, task=task).mean())
            parts = [
                f"{name} {signed_text(interval_of(here.sel(condition=name)))}"
                for name in here.values["condition"].values.tolist()
            ]
            print(f"  steering {task} at layer {layer}: {before:.2f} before; {', '.join(parts)}", flush=True)


def print_circuit(
    model: tv.HookedModel,
    vector: tv.TaskVector,
    null: dict[int, tv.TaskVector],
    family: tuple[tv.Task, ...],
    n: int,
    kept: Path,
) -> None:
    """What the strongest edges carry of a task's vector against Null's: the right word less another of the list."""
    named = {task.name: task for task in family}
    task, wrong = named[vector.task], named["first" if vector.task == "third" else "third"]
    dev, test = (against(task, wrong, count, split) for count, split in ((n, "dev"), (3 * n // 2, "test")))
    scores = tv.discover(
        model,
        dev,
        source=vector.replace(),
        against=null[vector.site.layer].replace(),
        method=tv.circuits.ExactEdges(screen=400),
        folder=kept / f"{task.name} edges {vector.site.layer}",
        progress=False,
    )
    sizes = (10, 20, 50, 100, 200, 400)
    curve = tv.circuits.faithfulness(
        model, scores, test, sizes=sizes, folder=kept / f"{task.name} curve {vector.site.layer}", progress=False
    )
    gap = replace(curve, values=curve.clean - curve.corrupted, clean=None, corrupted=None)
    print(
        f"  {task.name} less {wrong.name}, its vector at layer {vector.site.layer} against Null's: {scores.units} "
        f"{signed_text(interval_of(gap))}"
    )
    share = curve.recovery()
    for size in sizes:
        parts = [
            f"{kind} {limits_text(interval_of(share.sel(kind=kind, size=size)))}"
            for kind in curve.values["kind"].values.tolist()
        ]
        print(f"    {size} of {len(scores.graph)} edges carry: {'; '.join(parts)}", flush=True)


def against(task: tv.Task, wrong: tv.Task, n: int, split: str) -> Prompts:
    """Queries whose foil is another word of the same list."""
    drawn = task.queries(n, split=split)
    return drawn.with_items(
        [
            Prompt.build(task.template, (), tv.tasks.Pair(one.input, one.output), [wrong.lookup[one.input]])
            for one in drawn
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pools", type=int, default=3, help="of three parts of the vocabulary, no word in two of them")
    parser.add_argument("--n", type=int, default=40, help="test queries per task")
    parser.add_argument("--contexts", type=int, default=40, help="prompts behind each mean")
    parser.add_argument("--circuits", nargs="*", default=[], help="tasks whose vector's circuit is measured")
    parser.add_argument("--queries", type=int, default=12, help="queries on which edges are measured")
    parser.add_argument("--folder", default="vectors", help="keeps finished work, so that the same command continues")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = tv.load(options.model)
    for pool in range(options.pools):
        started, kept = time.process_time(), Path(options.folder) / f"pool {pool}"
        family = tv.tasks.family("positions", seed=pool, vocabulary=common_words()[pool::3])
        null = tv.tasks.null(family, seed=pool)
        print(f"pool {pool}", flush=True)
        by_task = {task.name: vectors_of(model, task, options, kept) for task in (*family, null)}
        print_alike(by_task)
        best = {task.name: chosen(model, task, by_task[task.name], kept) for task in family}
        for i, task in enumerate(family):
            vector = best[task.name]
            print_answered(model, task.prompts(10, options.n, split="test"), f"{task.name} at 10 shots")
            queries = task.queries(options.n, split="test")
            for one in (vector, by_task[task.name][COMPARED]):
                print_answered(model, queries, f"{task.name}'s vector at layer {one.site.layer}", one.replace())
            other = by_task[family[(i + 1) % len(family)].name][vector.site.layer]
            print_injected(model, task, vector, options.n, kept, other)
        print_steered(model, family, pool, options, kept)
        for name in options.circuits:
            print_circuit(model, by_task[name][COMPARED], by_task[null.name], family, options.queries, kept)
        print(f"  {time.process_time() - started:.0f} processor seconds on one thread", flush=True)


if __name__ == "__main__":
    main()
