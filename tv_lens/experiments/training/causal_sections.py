"""The sections on patching, head ablation and circuits of the page of `emergence`, one function per section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tv_lens.experiments.claims import Claim
from tv_lens.experiments.regressors.circuits import LatentCircuits
from tv_lens.experiments.stages import listed
from tv_lens.experiments.training.causal import PATCHED
from tv_lens.experiments.training.claims import claims_on
from tv_lens.experiments.training.figures import with_levels
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.result import Emergence
from tv_lens.results.sweep import Sweep
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Section, Table
from tv_lens.viz.theme import number


def patching(one: Findings, claims: Sequence[Claim]) -> list[Section]:
    """Patch matrices, and the sign pattern of every way of patching."""
    if not one.result.patch_matrices:
        return []
    parts: list[Any] = [
        claims_on(claims, one, "patching"),
        "A row is the task whose mean representation is patched in, a column the task whose episodes are changed. "
        "Blue lowers the loss (it helps), orange raises it, on one scale for all checkpoints. The layer is where own "
        "and other representations differ most on every second episode; the claims and the table are of the other "
        "half, and their limits hold "
        "for all ways of patching at once, since of many some would fit by chance. The menu has the other layers.",
    ]
    patched = {step: matrix.sel(**PATCHED) for step, matrix in one.result.patch_matrices.items()}
    reach = _reach([matrix.sel(layer=one.patched_layer) for matrix in patched.values()])
    for step, shown in sorted(patched.items()):
        layers = [
            one.patched_layer,
            *(layer for layer in shown.values["layer"].values.tolist() if layer != one.patched_layer),
        ]
        shown = with_levels(shown.sel(layer=layers), {})
        parts.append(
            plot(
                shown,
                kind="heatmap",
                height=440,
                reach=reach,
                lower_helps=True,
                title=f"Step {step}: change of the loss, difference of means added at y-tokens",
            )
        )
        parts.append(_patch_table(one, step))
    return [Section(f"Patching class means between tasks ({one.figures['patching']})", *parts)]


def _patch_table(one: Findings, step: int) -> Table:
    """The sign pattern of every way of patching, at the layer that is reported."""
    table, clusters = one.verdicts(step), one.clusters(step)
    names = {"same": "own"} | (
        {"other": "others"} if clusters is None else {"cluster": "same cluster", "other_cluster": "other clusters"}
    )
    rows = table[["position", "mode", "scored"]].copy()
    for name, words in names.items():
        if name not in table:
            continue
        limits = table[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        # To a thousandth, so that the table stays narrow: smaller effects do not matter.
        rows[f"{words} [95%]"] = [
            f"{mean:.3f} [{f'{low:.3f}, {high:.3f}' if low == low else 'no limits'}]".replace("-", "−")
            for mean, low, high in limits
        ]
    rows["verdict"] = [_PATTERNS[verdict] for verdict in table["verdict"]]
    by_then = "" if clusters is None else f"; distinguished by then: {_distinguished(one.result.tasks, clusters)}"
    return Table(
        rows,
        f"Step {step}, layer {one.patched_layer}, every way of patching: change of the loss by own and "
        f"other representations; limits hold for all ways at once{by_then}.",
    )


_PATTERNS = {
    "holds": "the paper's pattern",
    "others raise": "others raise the loss, the own one does nothing certain",
    "own lowers": "the own one lowers the loss, others do not raise it",
    "all raise": "every representation raises the loss",
    "nothing": "no effect",
    "undecided": "no limits",
    "no": "neither",
}


def _distinguished(tasks: Sequence[str], clusters: Sequence[int]) -> str:
    names = [task for task, cluster in zip(tasks, clusters, strict=True) if cluster]
    return listed(names) if names else "none"


def _reach(sweeps: Iterable[Sweep], share: float = 1.0) -> float:
    """How far a scale goes to hold this share of the cells of all sweeps."""
    sizes = np.concatenate([np.abs(sweep.mean().values).ravel() for sweep in sweeps])
    return float(np.nanquantile(sizes, share)) or float(np.nanmax(sizes)) or 1.0


def heads(one: Findings, claims: Sequence[Claim]) -> list[Section]:
    """The effect of ablating each head on each task."""
    if not one.result.ablations:
        return []
    parts: list[Any] = [claims_on(claims, one, "heads")]
    shown = {step: ablation.sel(how="mean", scored="sequence") for step, ablation in one.result.ablations.items()}
    # One head may change the loss ten times as much as all others, which would then be as pale as no effect.
    reach = _reach(shown.values(), share=0.9)
    parts.append("Beyond the scale, a cell has the scale's last colour; the number in it is exact.")
    for step, ablation in sorted(shown.items()):
        parts.append(
            plot(
                ablation,
                kind="heatmap",
                height=440,
                reach=reach,
                lower_helps=True,
                title=f"Step {step}: increase in loss when a head is mean-ablated",
            )
        )
    if one.ties is not None:
        table = one.ties.head(12).rename(
            columns={
                "low": "effect low",
                "high": "effect high",
                "selectivity_low": "selectivity low",
                "selectivity_high": "selectivity high",
            }
        )
        parts.append(
            Table(
                table,
                "The most selective heads: effect on their task (chosen on half of the episodes, reported on the other "
                "half), and how much more than on the others. Limits hold for all heads at once.",
                strong=(),
                headings={"effect": "effect", "selectivity": "selectivity"},
            )
        )
    return [Section(f"Head ablation ({one.figures['heads']})", *parts)]


def circuits(result: Emergence) -> list[Section]:
    """The circuits of the tasks, before and after the task is encoded."""
    sections: list[Section] = []
    if result.circuits:
        sections.append(
            Section(
                "Circuits before and after (ours)",
                "Which edges carry what an episode's own answers say, against its twin: the same inputs, answered by "
                "another task.",
                *_circuits(result.circuits),
            )
        )
    if result.decoding:
        sections.append(
            Section(
                "Decoding circuits before and after (ours)",
                "A task's vector, its mean representation less the mean of all, is added at the last answer of an "
                "episode; in the other run the next task's vector is. Which edges carry the difference from there to "
                "the prediction? Where several tasks' circuits are much the same edges, one circuit decodes them all.",
                *_circuits(result.decoding),
            )
        )
    return sections


def _circuits(by_step: Mapping[int, LatentCircuits]) -> list[Any]:
    """By step: a table, the overlap between tasks, and the circuit of the first task."""
    parts: list[Any] = []
    for step, one in sorted(by_step.items()):
        table = one.table().drop(columns="edges").rename(columns=lambda name: name.replace("_", " "))
        parts.append(
            Table(
                table,
                f"Step {step}: what the {one.edges} strongest edges recover of the gap on held-out "
                "episodes, random circuits beside them; no share where the gap may be 0.",
                headings={"edges for 80": "edges for 80%"},
            )
        )
        if one.comparison is not None:
            overlap = one.comparison.overlap.mean().values
            same = np.eye(len(overlap), dtype=bool)
            parts.append(
                f"Step {step}: the strongest edges of two tasks overlap by {number(overlap[~same].mean())}, "
                f"those of one task on two halves of its episodes by {number(overlap[same].mean())} (Jaccard "
                "index, means; halves on both sides)."
            )
        name, circuit = next(iter(one.circuits.items()))
        parts.append(plot(circuit, title=f"Step {step}: the circuit of {name}"))
    return parts
