"""Is a circuit enough, is all of it needed, and is anything else? Its own runs, on prompts that it was not found on.

Every verb here runs circuits (patched.py): edges in the circuit carry what their writers write, all others run B's values.
The full circuit is run A and the empty one run B, exactly, so `sweep.recovery()` is the share of the gap that a circuit
carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.contrast import Contrast, Setting
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.patched import run_circuits
from tv_lens.circuits.runs import Runs, make_runs
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts
from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep
from tv_lens.tasks.prompts import PromptPairs, Prompts

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Circuit sizes as shares of the graph's edges: the grid of Mueller et al. 2025 (MIB, arXiv 2504.13151)."""


def faithfulness(
    model: HookedModel, circuit: Circuit | EdgeScores, prompts: Prompts | PromptPairs | Contrast, *,
    setting: Setting | None = None, sizes: Sequence[int] | None = None, by: str = "magnitude", grow: bool = False,
    random: int = 3,
    seed: int = 0, progress: bool = True,
) -> Sweep:  # fmt: skip
    """The metric of a model that runs only a circuit, over the circuit's size, with random circuits beside it.

    Args:
        model: the model that the edges were found on.
        circuit: a circuit, or scores whose best edges make one of each size.
        prompts: to test on: others than those the edges were found on.
        setting: what the runs differ in, and what is read; the scores' own if None.
        sizes: numbers of edges. For scores ten shares of all edges (`SHARES`) if None, for a circuit its own number.
        by: how the edges are ranked (`EdgeScores.order`).
        grow: grow each circuit from the end (`EdgeScores.grow`) instead of taking the best edges wherever they are.
        random: random circuits of each size and kind, averaged.
        seed: draws them.
        progress: show a bar where somebody looks.

    Returns:
        A Sweep over kind ("circuit", "random", "degree-matched") and size, with run A as the clean and run B as the
        corrupted baseline. A degree-matched circuit keeps, for every reader, how many edges enter it, and draws which.
        `provenance["areas"]` holds CPR and CMD of each kind over the stated grid of sizes.

    Sign:
        The metric's own. `sweep.recovery()` is 1 where the circuit does what run A does and 0 where it does what run B
        does; it leaves 0 to 1 where edges that hurt are left out.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4; Hanna et al. 2024 (arXiv 2403.17806), normalised faithfulness;
        Mueller et al. 2025 (MIB, arXiv 2504.13151), CPR and CMD. Deviation: areas by trapezoids over the share of edges,
        from the ratio of mean gaps instead of the mean of ratios.
    """
    runs, graph = _runs(model, circuit, prompts, setting)
    sizes = _sizes(circuit, sizes)
    generator = torch.Generator().manual_seed(seed)
    masks, effective = [], []
    for size in sizes:
        mask = circuit.mask if isinstance(circuit, Circuit) and size == len(circuit) else _best(circuit, size, by, grow)
        drawn = [_random(graph, size, generator) for _ in range(random)]
        matched = [_degree_matched(graph, mask, generator) for _ in range(random)]
        masks.append(torch.stack([mask, *drawn, *matched]))
        effective.append(int(graph.sparse(graph.on_paths(graph.dense(mask))).sum()))
    found = run_circuits(runs, torch.cat(masks), show_progress=progress).unflatten(1, (len(sizes), 1 + 2 * random))
    kinds = {"circuit": found[:, :, 0]}
    if random:
        kinds |= {"random": found[:, :, 1 : 1 + random].mean(2), "degree-matched": found[:, :, 1 + random :].mean(2)}
    values = xr.DataArray(
        torch.stack(list(kinds.values()), dim=1).numpy(), dims=("example", "kind", "size"),
        coords={"kind": list(kinds), "size": list(sizes), "effective": ("size", effective)},
    )  # fmt: skip
    about = {"n_edges": len(graph), "by": by, "grown": grow, "random": random, "seed": seed}
    sweep = _sweep(runs, values, "faithfulness", about)
    return replace(sweep, provenance={**sweep.provenance, "areas": areas(sweep, len(graph))})


def areas(sweep: Sweep, n_edges: int) -> dict[str, Any]:
    """CPR and CMD of each kind of circuit of a faithfulness sweep, with the grid they were computed on.

    CPR is the mean of the recovered share of the gap over circuit sizes (1 is best); CMD the mean distance of that share
    from 1 (0 is best). Both are areas by trapezoids over the share of edges, from an empty circuit on.
    """
    shares = np.concatenate([[0.0], sweep.values["size"].values / n_edges])
    gap = float((sweep.clean - sweep.corrupted).mean())
    found: dict[str, Any] = {"grid": shares.tolist()}
    for kind in sweep.values["kind"].values:
        mean = sweep.values.sel(kind=kind).mean("example").values
        recovered = np.concatenate([[0.0], (mean - float(sweep.corrupted.mean())) / gap])
        span = shares[-1]
        found[str(kind)] = {"cpr": float(np.trapezoid(recovered, shares) / span),
                            "cmd": float(np.trapezoid(np.abs(1 - recovered), shares) / span)}  # fmt: skip
    return found


def completeness(
    model: HookedModel, circuit: Circuit, prompts: Prompts | PromptPairs | Contrast, *, setting: Setting | None = None,
    subsets: int = 10, share: float = 0.5, seed: int = 0, progress: bool = True,
) -> Sweep:  # fmt: skip
    """The metric of the circuit and of the whole model when the same edges are taken out of both.

    Args:
        model: the model that the circuit was found on.
        circuit: the circuit.
        prompts: to test on.
        setting: what the runs differ in; the scores' own if None.
        subsets: how many random sets of the circuit's edges are taken out, beside all of them.
        share: how much of the circuit each of them holds.
        seed: draws them.
        progress: show a bar where somebody looks.

    Returns:
        A Sweep over run ("circuit", "model") and removed ("nothing", "all", then "0", "1", ...). A complete circuit
        loses what the model loses: with all of it removed the model falls to run B. What stays then is done by edges
        outside the circuit.

    Sign:
        The metric's own.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4.1, with edges for nodes and random subsets for the greedy ones.
    """
    if not 0 < share <= 1:
        raise InvalidArgument("A subset is a share of the circuit.", got=f"share={share}", allowed="above 0, up to 1")
    runs, graph = _runs(model, circuit, prompts, setting)
    generator = torch.Generator().manual_seed(seed)
    removed = [torch.zeros_like(circuit.mask), circuit.mask]
    for _ in range(subsets):
        edges = circuit.edges[torch.randperm(len(circuit), generator=generator)[: max(1, round(share * len(circuit)))]]
        removed.append(torch.zeros_like(circuit.mask).index_fill_(0, edges, True))
    out = torch.stack(removed)
    found = run_circuits(runs, torch.cat([circuit.mask & ~out, ~out]), show_progress=progress)
    values = xr.DataArray(
        found.unflatten(1, (2, len(out))).numpy(), dims=("example", "run", "removed"),
        coords={"run": ["circuit", "model"], "removed": ["nothing", "all", *map(str, range(subsets))]},
    )  # fmt: skip
    return _sweep(runs, values, "completeness", {"n_edges": len(graph), "share": share, "seed": seed, "size": len(circuit)})


def minimality(
    model: HookedModel, circuit: Circuit, prompts: Prompts | PromptPairs | Contrast, *, setting: Setting | None = None,
    progress: bool = True,
) -> Sweep:  # fmt: skip
    """What each edge of a circuit is worth inside it: the circuit's metric less its metric without the edge.

    Args:
        model: the model that the circuit was found on.
        circuit: the circuit.
        prompts: to test on.
        setting: what the runs differ in; the scores' own if None.
        progress: show a bar where somebody looks.

    Returns:
        A Sweep over edge, in the graph's order. An edge whose interval holds 0 could be left out.

    Sign:
        Positive: the circuit needs the edge. Zero: it does not.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4.2, with each edge left out alone.
    """
    runs, graph = _runs(model, circuit, prompts, setting)
    if not len(circuit):
        raise EmptySelection("An empty circuit has no edge to leave out.")
    masks = circuit.mask.repeat(len(circuit) + 1, 1)
    masks[torch.arange(len(circuit)), circuit.edges] = False
    found = run_circuits(runs, masks, show_progress=progress)
    values = xr.DataArray((found[:, -1:] - found[:, :-1]).numpy(), dims=("example", "edge"), coords={"edge": circuit.names})
    sweep = _sweep(runs, values, "minimality", {"n_edges": len(graph), "size": len(circuit)})
    return replace(sweep, metric=f"loss of {runs.info.name}", clean=None, corrupted=None, zero=0.0,
                   sign="positive: the circuit needs the edge; 0: it does not")  # fmt: skip


# ---- parts ----------------------------------------------------------------------------------------------------------


def _runs(
    model: HookedModel, found: Circuit | EdgeScores, prompts: Prompts | PromptPairs | Contrast, setting: Setting | None
) -> tuple[Runs, Graph]:
    """The runs on new prompts, whose graph has the very same edges."""
    found.check(model)
    scores = found.scores if isinstance(found, Circuit) else found
    setting = setting or (None if scores is None else scores.setting)
    if setting is None:
        do = "give setting=tv.Setting(source=vector.replace()), with all that discover was given."
        raise InvalidArgument("It is not known what the two runs differ in: scores from a file and circuits by hand do "
                              "not say.", do=do)  # fmt: skip
    runs = make_runs(model, prompts, setting)
    ours, theirs = runs.graph, found.graph
    labels = [[place.label for place in graph.positions] for graph in (ours, theirs)]
    if labels[0] != labels[1] or not torch.equal(ours.edges, theirs.edges):
        raise MisalignedPrompts("These prompts have other edges than the circuit.", got=repr(ours), allowed=repr(theirs),
                                do="test on prompts of the same spans, source and target as it was found on.")  # fmt: skip
    runs.check_gap()
    return runs, ours


def _sizes(found: Circuit | EdgeScores, sizes: Sequence[int] | None) -> list[int]:
    most = len(found) if isinstance(found, Circuit) else len(found.measured)
    if sizes is None:
        total = len(found.graph)
        sizes = [len(found)] if isinstance(found, Circuit) else [min(most, max(1, round(s * total))) for s in SHARES]
    sizes = sorted(set(int(size) for size in sizes))
    if not sizes or sizes[0] < 1 or sizes[-1] > most:
        raise EmptySelection("There are not that many edges.", got=f"sizes {sizes}", allowed=f"1 to {most:,}")
    return sizes


def _best(found: Circuit | EdgeScores, size: int, by: str, grow: bool) -> Bool[Tensor, "edge"]:
    """The best edges of scores, or of a circuit that has scores."""
    if isinstance(found, EdgeScores):
        return (found.grow(size, by) if grow else found.top(size, by)).mask
    if found.scores is None:
        raise InvalidArgument("This circuit has no scores, so its edges have no order.", got=f"sizes below {len(found)}",
                              allowed=f"its own size, {len(found)}")  # fmt: skip
    order = found.scores.order(by)
    mask = torch.zeros_like(found.mask)
    mask[order[found.mask[order]][:size]] = True
    return mask


def _random(graph: Graph, size: int, generator: torch.Generator) -> Bool[Tensor, "edge"]:
    mask = torch.zeros(len(graph), dtype=torch.bool)
    mask[torch.randperm(len(graph), generator=generator)[:size]] = True
    return mask


def _degree_matched(graph: Graph, mask: Bool[Tensor, "edge"], generator: torch.Generator) -> Bool[Tensor, "edge"]:
    """As many edges into each reader at each place as the circuit has, drawn among all that could enter it."""
    into = graph.edges[:, 0] * graph.n_readers + graph.edges[:, 2]
    wanted = torch.zeros(int(into.max()) + 1, dtype=torch.long).index_add_(0, into, mask.long())
    shuffled = torch.randperm(len(graph), generator=generator)
    grouped = shuffled[torch.sort(into[shuffled], stable=True).indices]
    groups: Int[Tensor, "edge"] = into[grouped]
    first = torch.searchsorted(groups, groups)
    drawn = grouped[torch.arange(len(graph)) - first < wanted[groups]]
    return torch.zeros_like(mask).index_fill_(0, drawn, True)


def _sweep(runs: Runs, values: xr.DataArray, name: str, about: dict[str, Any]) -> Sweep:
    info = runs.info
    run_a, run_b = (run.numpy() for run in runs.baselines)
    task = runs.contrast.about.get("task", "the prompts")
    return Sweep(values, metric=info.name, units=info.units, sign=info.sign, clean=run_a, corrupted=run_b, zero=info.zero,
                 name=f"{name} on {task}",
                 provenance={"verb": name, "model": runs.model.name, "fingerprint": runs.model.fingerprint,
                             **runs.contrast.about, **about})  # fmt: skip
