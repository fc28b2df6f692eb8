"""The sections of the page of `emergence`, one function per section; each opens with the paper's claims on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from tv_lens.experiments.claims import RULE, Claim, counted_verdicts, rule_table, verdict_table
from tv_lens.experiments.stages import listed
from tv_lens.experiments.training.claims import claims_on
from tv_lens.experiments.training.figures import (
    by_layer,
    clipped,
    decodability,
    gains,
    levels,
    losses,
    over_runs,
    resemblance,
    with_levels,
)
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.result import Emergence
from tv_lens.experiments.training.timing import Coupling
from tv_lens.experiments.training.timing_claims import step_text
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Facts, Note, Section, Table
from tv_lens.viz.theme import interval_text, number

VERDICTS = (
    f"{RULE} Where the paper gives no number, the one after “here” is the bound. Another seed is another network."
)


def summary(networks: Sequence[Findings], claims: Sequence[Claim], coupling: Coupling) -> list[Any]:
    """Tiles, the coupling in a sentence, and every claim with its verdict."""
    result, alone = networks[0].result, len(networks) == 1
    last = pd.concat([one.result.table() for one in networks])
    tiles: dict[str, Any] = {
        "Run" if alone else "Runs": (
            result.name if alone else len(networks),
            f"{len(result.tasks)} tasks, {len(result.steps)} checkpoints to step {result.steps[-1]}",
        )
    }
    over = "mean over tasks" + ("" if alone else " and runs")
    if "MSE / Bayes" in last:
        tiles["Loss at the end"] = (number(float(last["MSE / Bayes"].mean())), f"times the Bayes mixture's, {over}")
    ends = [float(one.result.td_curve(**one.place).isel(step=-1).mean().mean()) for one in networks]
    tiles["Decodability at the end"] = (number(sum(ends) / len(ends)), f"{over}; chance {number(result.chance())}")
    counts = {verdict: count for verdict, count in counted_verdicts(claims).items() if count}
    tiles["Claims"] = (" / ".join(map(str, counts.values())), " / ".join(counts))
    table = verdict_table(claims).drop(columns="family")
    heads = {"figure": "paper's figure", "control": "control or caveat"}
    parts: list[Any] = [
        Facts(tiles),
        Note(f"Coupling: {coupling.sentence()}."),
        VERDICTS,
        Table(table, "The paper's claims, what it reports, and what was found here.", headings=heads),
        Table(rule_table(claims), "What each claim was tested by, fixed before the data.", headings=heads),
    ]
    if result.left_out:
        parts.append("Not measured:\n\n" + "\n".join(f"- {name}: {why}" for name, why in result.left_out.items()))
    return parts


def training(one: Findings, claims: Sequence[Claim]) -> list[Any]:
    """The scrubber, losses beside the references, and which predictor the network resembles."""
    result = one.result
    figure = plot(result, title=f"{result.name}: losses, decodability by layer and maps at one checkpoint")
    shown = {"task": "task", "MSE": "MSE", "MSE low": "MSE low", "MSE high": "MSE high", "MSE / power": "MSE / power"}
    table, beside = result.table(), result.references.mean("shots").mean()
    if result.bayes is None:
        for name in levels(result):
            table[name] = beside.sel(reference=name).values
    extra = [name for name in (*levels(result), "MSE / Bayes") if name in table]
    return [
        claims_on(claims, one, "training"),
        figure,
        Table(
            table[[*shown, *extra]], f"Mean squared error at step {result.steps[-1]}, beside the reference predictors'."
        ),
        *_algorithm(result),
    ]


def _algorithm(result: Emergence) -> list[Any]:
    sweep = resemblance(result)
    final = sweep.isel(step=-1).mean().to_series().sort_values()
    nearest = replace(sweep, values=sweep.values.sel(reference=list(final.index[:6])))  # more would repeat colours
    rest = f" Not drawn: {listed(list(final.index[6:]))}." if len(final) > 6 else ""
    text = (
        "Which predictor does the network compute? The smaller the distance of their predictions, the more alike "
        "they are; a network "
        f"that did the same as one would be at 0.{rest}"
    )
    return [text, plot(nearest, title="Distance of the network's predictions from the references'")]


def seeds(networks: Sequence[Findings]) -> list[Section]:
    """Losses and decodability seed by seed; nothing for one network."""
    if len(networks) < 2:
        return []
    parts: list[Any] = [
        "Seeds differ in their weights and their episodes, and in nothing else. The paper: in two of "
        "three, one basis drops "
        "before the others; in the third, all together."
    ]
    results = [one.result for one in networks]
    for what in ("loss", "decodability"):
        sweep = over_runs(results, what)
        drawn = losses if what == "loss" else decodability
        parts += [plot(sweep)] if sweep is not None else [plot(drawn(one)) for one in results]
    rows = [{"run": one.result.name, **row} for one in networks for row in _change_rows(one)]
    parts.append(Table(pd.DataFrame(rows), "Steps at which each task's loss and decodability change."))
    parts += [plot(one) for one in results[1:]]
    return [Section(f"Seeds side by side ({networks[0].figures['seeds']})", *parts)]


def _change_rows(one: Findings) -> list[dict[str, Any]]:
    """One row per task: when its loss drops and its decodability rises, and the factor between them."""
    table = one.points.table().set_index(["task", "curve"])
    rows = []
    for lag in one.points.lags().to_dict("records"):
        row: dict[str, Any] = {"task": lag["task"]}
        for curve, words in (("loss", "loss drops at step"), ("TD", "decodability rises at step")):
            cell = table.loc[(lag["task"], curve)]
            row[words] = _step(cell, one) if cell.changed else "no change"
        factors = [lag[name] for name in ("factor", "factor low", "factor high")]
        ordered = not (one.too_few_checkpoints or pd.isna(factors[0]))
        row["decodability's step / loss's"] = interval_text(*factors, why=lag["why"]) if ordered else "–"
        rows.append(row)
    return rows


def _step(cell: Any, one: Findings) -> str:
    """A step with its limits; of few checkpoints the two that it lies between, since their grid says where it is."""
    if not one.too_few_checkpoints:
        return step_text(cell)
    low, high = (cell.step, cell.step) if cell.why else (cell.low, cell.high)
    before = max((step for step in one.result.steps if step <= low), default=one.result.steps[0])
    after = min((step for step in one.result.steps if step >= high), default=one.result.steps[-1])
    return f"between {before} and {after}"


def timing(one: Findings, claims: Sequence[Claim], coupling: Coupling) -> list[Any]:
    """When losses drop and decodability rises, the tests of coupling, and the controls."""
    result, parts = one.result, [claims_on(claims, one, "timing")]
    if result.bayes is not None and result.ceiling is not None:
        parts.append(clipped(plot(gains(result), title="Share of what there is to gain, task by task"), -0.35, 1.15))
    parts.append(plot(decodability(result)))
    for level in ("group", "within") if result.td_group is not None else ():
        parts.append(plot(decodability(result, level)))
    parts += [
        Table(
            pd.DataFrame(_change_rows(one)),
            f"Change points ({one.points.definition}); decodability at {one.points.curves.place}.",
        ),
        f"Tests of coupling: none, {one.too_few_checkpoints}."
        if one.too_few_checkpoints
        else f"Tests of coupling. {_test('Pairing', coupling.pairing)}\n\n{_test('Shift', coupling.shift)}",
        _controls(result),
    ]
    return parts


def _test(name: str, test: Any) -> str:
    return (
        f"**{name}**: r {test.statistic:.2f}, {test.verdict()} of {test.n} rearrangements. Null hypothesis: "
        f"{test.null}. Power: {test.power}. A small p shows {test.shows}."
    )


def _controls(result: Emergence) -> Table:
    """Decodability at the end at the best layer of each token, beside its controls."""
    rows = []
    for token in result.td.values["token"].values.tolist():
        layer = result.best(token)["layer"]
        last = result.td_curve(token, layer).isel(step=-1).interval()
        band = result.chance_band().isel(step=-1).sel(token=token, layer=layer)
        beside = result.td_controls.sel(token=token).mean()
        for task in result.tasks:
            here = last.sel(task=task)
            row = {
                "token": token,
                "layer": layer,
                "task": task,
                "TD": float(here["mean"]),
                "TD low": float(here["low"]),
                "TD high": float(here["high"]),
                "chance low": float(band["low"].sel(task=task)),
                "chance high": float(band["high"].sel(task=task)),
            }
            for control, words in (("token", "from the vector read"), ("answers", "from the answers")):
                row[words] = float(beside.sel(control=control, task=task))
            rows.append(row)
    return Table(
        pd.DataFrame(rows),
        "Decodability at the last checkpoint, the band of chance, and what neighbours find without the network.",
    )


def layers(one: Findings, claims: Sequence[Claim]) -> list[Any]:
    """Decodability by layer at three checkpoints, at each token."""
    steps = list(dict.fromkeys(one.stages.values()))
    text = "Checkpoints: " + "; ".join(f"{step} ({name})" for name, step in one.stages.items()) + "."
    if len(steps) == len(one.stages) == 3:
        text += " Mean decodability has risen by less than a tenth at the first, by half or more at the second."
    else:
        text += " There are too few checkpoints for one before, one in the middle and one at the end of its rise."
    return [
        claims_on(claims, one, "layers"),
        text,
        *(plot(by_layer(one.result, steps, token)) for token in one.result.td.values["token"].values.tolist()),
    ]


def posterior(result: Emergence) -> list[Section]:
    """Measurements that the paper lacks: the distance from the Bayesian, and the read-out of the posterior."""
    if result.kl is None or result.readout_r2 is None:
        return []
    token = str(result.best()["token"])
    steps = list(dict.fromkeys(result.steps[i] for i in (len(result.steps) // 3, 2 * len(result.steps) // 3, -1)))
    by_shots = result.kl.mean("task").sel(step=steps)
    by_shots = with_levels(
        replace(by_shots, values=by_shots.values.transpose("example", "shots", "step")),
        {},
        name="Excess divergence over the Bayes-optimal predictor",
    )
    probe = result.readout_r2.sel(token=token, shots=result.shots)
    means = replace(probe, values=probe.values.mean("task"), denominator=probe.denominator.mean("task"))
    places = [f"layer {layer}" for layer in means.values["layer"].values]  # by name: steps are the axis
    named = {
        key: getattr(means, key).rename(layer="place").assign_coords(place=places).transpose("example", "step", "place")
        for key in ("values", "denominator")
    }
    means = with_levels(
        replace(means, **named), {}, name=f"Posterior over tasks, read out linearly at the {token}-token"
    )
    text = (
        "Decodability asks whether the most likely task can be named. The Bayesian holds a whole posterior over "
        "tasks: how much of it "
        "can a linear read-out, fitted on other episodes, recover? And how far are predictions from the "
        "Bayesian's, example by example?"
    )
    return [Section("Against the Bayesian (ours)", text, plot(means), plot(by_shots))]


_SETTINGS = {
    "checkpoints": "largest number of checkpoints",
    "n": "held-out episodes per task",
    "probe_episodes": "episodes per task for probes and projections",
    "shots": "context lengths at which representations are read",
    "k": "neighbours that vote",
    "n_label_shuffles": "shuffles of labels behind the band of chance",
    "map_points": "points per task on a map",
    "patch_episodes": "episodes per task that are patched, and on which heads are ablated",
    "circuits": "episodes per task that circuits are measured on",
    "draw": "seed of the episodes",
    "read after": "examples before the position that is read",
}


def measured(result: Emergence) -> list[Any]:
    """Settings, maps, time, and the command that trained the network."""
    settings = {name: value for name, value in result.settings.items() if value not in ("", None)}
    lines = [f"- {_SETTINGS.get(name, name)}: {value}" for name, value in settings.items() if name != "name"]
    counts = (
        "A point counts as decoded if most of its nearest neighbours, itself left out, are of its task, by Euclidean "
        "distance of the residual stream. Token and layer are those with the largest mean at the last checkpoint. "
        "Intervals: 95%, over held-out episodes of this network."
    )
    where = "\n".join(
        f"- {kind}: {one.site} after {one.shots} examples, {one.explained:.0%} of the variance in the "
        f"plane; {one.method}"
        for kind, one in result.maps.items()
    )
    parts = [
        f"Family: `{result.family!r}`.",
        "\n".join(lines),
        counts,
        f"Maps:\n\n{where}",
        f"Time: {sum(result.seconds.values()):.0f} s this time "
        f"({', '.join(f'{name} {took:.0f} s' for name, took in result.seconds.items())}).",
    ]
    if result.model.get("command"):
        parts.append(f"The network was trained by:\n\n```\n{result.model['command']}\n```")
    return parts
