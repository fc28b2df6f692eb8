"""Function vectors on the embedded model: which heads lead, with limits, and what their sum does beside its controls.

    python benchmarks/function_vectors.py [--tasks present-past,singular-plural,capitalize,country-capital]
                                          [--contexts 100] [--prompts 25] [--queries 50] [--out folder]

Each task's effects (exact, of every head, on prompts with shuffled labels), their ranking with limits, the vector of
the first ten heads at the layer that dev queries choose, and its accuracy on test queries beside controls and beside
`ResidualMean`. With --out, each task's effects are kept there as a Sweep and its numbers as JSON; tasks that are there
are not measured again. At the end: the heads that lead over all tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tasks", default="present-past,singular-plural,capitalize,country-capital")
parser.add_argument("--contexts", type=int, default=100)
parser.add_argument("--prompts", type=int, default=25)
parser.add_argument("--queries", type=int, default=50)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--out", type=Path)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import numpy as np
import torch

import tv_lens as tv

torch.set_num_threads(options.threads)


def measured(model: tv.HookedModel, name: str) -> tuple[tv.Sweep, dict]:
    task, started = tv.task(name), time.process_time()
    method = tv.methods.FunctionVector(contexts=options.contexts, prompts=options.prompts)
    effects = method.effects(model, task, progress=False)
    seconds = time.process_time() - started
    ranking = tv.methods.head_ranking(effects)
    heads = ranking[["layer", "head"]].head(10).values.tolist()
    vector = tv.extract(
        model, task, method=tv.methods.FunctionVector(contexts=options.contexts, heads=heads), progress=False
    )
    evaluation = tv.evaluate(model, vector, task, n=options.queries, n_random=2, progress=False)
    mean = tv.extract(model, task, method=tv.methods.ResidualMean(contexts=options.contexts), progress=False)
    queries = task.queries(n=min(options.queries, len(task.split("test"))), split="test")
    scores = evaluation.sel(score="first token").mean().to_series().to_dict()
    scores["ResidualMean"] = float(tv.score(model, queries, mean.replace(), progress=False).first_token.double().mean())
    return effects, {
        "layer": vector.site.layer,
        "residual_mean_layer": mean.site.layer,
        "accuracy": scores,
        "n": evaluation.n,
        "split_half": effects.provenance["split_half"],
        "seconds_of_effects": round(seconds, 1),
        "shuffled_prob": effects.provenance["shuffled_prob"],
    }


def measured_once(model: tv.HookedModel, name: str) -> tuple[tv.Sweep, dict]:
    """What was measured before under the same options, or is measured now."""
    if options.out is None:
        return measured(model, name)
    options.out.mkdir(parents=True, exist_ok=True)
    size = f"{options.contexts}-{options.prompts}-{options.queries}"
    at = options.out / f"{name}-{size}.json"
    if not at.exists():
        effects, facts = measured(model, name)
        effects.save(options.out / f"{name}-{size}.sweep")
        at.write_text(json.dumps(facts))
    return tv.Sweep.load(options.out / f"{name}-{size}.sweep"), json.loads(at.read_text())


def show(name: str, effects: tv.Sweep, facts: dict) -> None:
    print(
        f"\n{name}: {effects.n} shuffled prompts, split-half {facts['split_half']:.2f}, "
        f"{facts['seconds_of_effects']} s of processor"
    )
    table = tv.methods.head_ranking(effects)
    for row in table.head(5).itertuples():
        print(
            f"  {row.rank}. head {row.layer}.{row.head}  {row.effect:+.4f} [{row.low:+.4f}, {row.high:+.4f}], "
            f"selected {row.selected:.2f}"
        )
    settle = tv.methods.ranking_stability(effects).to_frame()
    for score in ("halves: rank correlation", "halves: top heads shared"):
        part = settle[(settle["score"] == score) & (settle["n"] > 0)]
        print(f"  {score}: " + ", ".join(f"{row.prompts} {row.mean:.2f}" for row in part.itertuples()))
    print(
        f"  first ten heads added at layer {facts['layer']} (ResidualMean replaces at {facts['residual_mean_layer']}), "
        f"{facts['n']} test queries, first token right:"
    )
    print("  " + ", ".join(f"{condition} {share:.2f}" for condition, share in facts["accuracy"].items()), flush=True)


model = tv.load("smollm2-135m")
results = {}
for name in options.tasks.split(","):
    results[name] = measured_once(model, name)
    show(name, *results[name])
if len(results) > 1:
    means = np.stack([effects.mean().values for effects, _ in results.values()]).mean(0)
    order = np.argsort(-means.reshape(-1))[:10]
    heads = [divmod(int(at), means.shape[1]) for at in order]
    print("\nover the tasks: " + ", ".join(f"{layer}.{head} ({means[layer, head]:+.4f})" for layer, head in heads))
