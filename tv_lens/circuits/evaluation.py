"""Is a circuit sufficient, is each of its edges necessary, and is anything outside it needed, on other prompts?

Every verb here runs circuits (`patched.py`): edges in the circuit carry what their writers write in this run, all
others what they wrote in the corrupted run. The full circuit is the clean run and the empty one the corrupted run,
exactly, so `sweep.recovery()` is the share of the gap that a circuit carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.circuit_runs import circuits_in_shards
from tv_lens.circuits.contrast import CircuitQuestion, Contrast
from tv_lens.circuits.contrast_passes import ContrastPasses, make_passes
from tv_lens.circuits.graph import Graph
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.tasks.prompts import PromptPairs, Prompts

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Circuit sizes as shares of the graph's edges: the grid of Mueller et al. 2025 (MIB, arXiv 2504.13151)."""


@renamed_keywords(setting="question=", random="n_random=")
@verb
def faithfulness(
    model: HookedModel,
    circuit: Circuit | EdgeScores,
    prompts: Prompts | PromptPairs | Contrast,
    *,
    question: CircuitQuestion | None = None,
    sizes: Sequence[int] | None = None,
    by: str = "magnitude",
    grow: bool = False,
    n_random: int = 3,
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The metric of a model that runs only a circuit, over the circuit's size, with random circuits beside it.

    Args:
        model: the model that the edges were found on.
        circuit: a circuit, or scores whose best edges make one of each size.
        prompts: the prompts to test on, other than those the edges were found on.
        question: source, baseline, target, metric and positions of the search; the scores' own if None.
        sizes: numbers of edges. For scores ten shares of all edges (`SHARES`) if None, for a circuit its own number.
        by: how the edges are ranked (`EdgeScores.order`).
        grow: grow each circuit from the end (`EdgeScores.grow`) instead of taking the best edges wherever they are.
        n_random: how many random circuits of each size and kind are averaged.
        seed: fixes the draws.
        folder: a folder that keeps finished circuits, so that a killed call continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep over kind ("circuit", "random", "degree-matched") and size, with the clean and the corrupted
        baseline. A degree-matched circuit keeps, for every reader, how many edges enter it, and draws which.
        `provenance["areas"]` holds CPR and CMD of each kind over the stated grid of sizes.

    Sign:
        The metric's own. `sweep.recovery()` is 1 where the circuit does what the clean run does and 0 where it does
        what the corrupted run does; it leaves 0 to 1 where edges that hurt are left out.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4; Hanna et al. 2024 (arXiv 2403.17806), normalised faithfulness;
        Mueller et al. 2025 (MIB, arXiv 2504.13151), CPR and CMD. Deviation: areas by trapezoids over the share of
        edges, from the ratio of mean gaps instead of the mean of ratios.

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=6)
        >>> circuit = discover(known.model, known.prompts, progress=False).top(5)
        >>> verbs = (faithfulness, completeness, minimality)
        >>> [verb(known.model, circuit, known.prompts, progress=False).name for verb in verbs]
        ['faithfulness on induction', 'completeness on induction', 'minimality on induction']
    """
    passes, graph = _passes(model, circuit, prompts, question)
    sizes = _sizes(circuit, sizes)
    generator = torch.Generator().manual_seed(seed)
    masks, effective = [], []
    for size in sizes:
        mask = circuit.mask if isinstance(circuit, Circuit) and size == len(circuit) else _best(circuit, size, by, grow)
        drawn = [_random(graph, size, generator) for _ in range(n_random)]
        matched = [_degree_matched(graph, mask, generator) for _ in range(n_random)]
        masks.append(torch.stack([mask, *drawn, *matched]))
        effective.append(int(graph.sparse(graph.on_paths(graph.dense(mask))).sum()))
    metrics, record = circuits_in_shards(passes, torch.cat(masks), _work(passes, "faithfulness", folder, progress))
    values = metrics.unflatten(1, (len(sizes), 1 + 2 * n_random))
    kinds = {"circuit": values[:, :, 0]}
    if n_random:
        kinds |= {
            "random": values[:, :, 1 : 1 + n_random].mean(2),
            "degree-matched": values[:, :, 1 + n_random :].mean(2),
        }
    labelled = xr.DataArray(
        torch.stack(list(kinds.values()), dim=1).numpy(),
        dims=("example", "kind", "size"),
        coords={"kind": list(kinds), "size": list(sizes), "effective": ("size", effective)},
    )
    about = {"n_edges": len(graph), "by": by, "grown": grow, "random": n_random, "seed": seed, **record}
    sweep = _sweep(passes, labelled, "faithfulness", about)
    return replace(sweep, provenance={**sweep.provenance, "areas": areas(sweep, len(graph))})


def areas(sweep: Sweep, n_edges: int) -> dict[str, Any]:
    """CPR and CMD of each kind of circuit of a faithfulness sweep, with the grid they were computed on.

    CPR is the mean of the recovered share of the gap over circuit sizes (1 is best); CMD the mean distance of that
    share from 1 (0 is best). Both are areas by trapezoids over the share of edges, from an empty circuit on.
    """
    shares = np.concatenate([[0.0], sweep.values["size"].values / n_edges])
    gap = float((sweep.clean - sweep.corrupted).mean())
    by_kind: dict[str, Any] = {"grid": shares.tolist()}
    for kind in sweep.values["kind"].values:
        mean = sweep.values.sel(kind=kind).mean("example").values
        recovered = np.concatenate([[0.0], (mean - float(sweep.corrupted.mean())) / gap])
        span = shares[-1]
        by_kind[str(kind)] = {
            "cpr": float(np.trapezoid(recovered, shares) / span),
            "cmd": float(np.trapezoid(np.abs(1 - recovered), shares) / span),
        }
    return by_kind


@renamed_keywords(setting="question=")
@verb
def completeness(
    model: HookedModel,
    circuit: Circuit,
    prompts: Prompts | PromptPairs | Contrast,
    *,
    question: CircuitQuestion | None = None,
    subsets: int = 10,
    share: float = 0.5,
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The metric of the circuit and of the whole model when the same edges are taken out of both.

    Args:
        model: the model that the circuit was found on.
        circuit: the circuit.
        prompts: the prompts to test on.
        question: source, baseline, target, metric and positions of the search; the scores' own if None.
        subsets: how many random sets of the circuit's edges are taken out, beside all of them.
        share: the share of the circuit's edges in each set.
        seed: fixes the draws.
        folder: a folder that keeps finished circuits, so that a killed call continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep over run ("circuit", "model") and removed ("nothing", "all", then "0", "1", ...). A complete circuit
        loses what the model loses: with all of it removed the model falls to the corrupted run. What stays then
        is done by edges outside the circuit.

    Sign:
        The metric's own.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4.1, with edges for nodes and random subsets for the greedy ones.
    """
    if not 0 < share <= 1:
        raise InvalidArgument("A subset is a share of the circuit.", got=f"share={share}", allowed="above 0, up to 1")
    passes, graph = _passes(model, circuit, prompts, question)
    generator = torch.Generator().manual_seed(seed)
    removed = [torch.zeros_like(circuit.mask), circuit.mask]
    for _ in range(subsets):
        edges = circuit.edges[
            torch.randperm(len(circuit), generator=generator, device="cpu")[: max(1, round(share * len(circuit)))]
        ]
        removed.append(torch.zeros_like(circuit.mask).index_fill_(0, edges, True))
    out = torch.stack(removed)
    work = _work(passes, "completeness", folder, progress)
    metrics, record = circuits_in_shards(passes, torch.cat([circuit.mask & ~out, ~out]), work)
    values = xr.DataArray(
        metrics.unflatten(1, (2, len(out))).numpy(),
        dims=("example", "run", "removed"),
        coords={"run": ["circuit", "model"], "removed": ["nothing", "all", *map(str, range(subsets))]},
    )
    about = {"n_edges": len(graph), "share": share, "seed": seed, "size": len(circuit), **record}
    return _sweep(passes, values, "completeness", about)


@renamed_keywords(setting="question=")
@verb
def minimality(
    model: HookedModel,
    circuit: Circuit,
    prompts: Prompts | PromptPairs | Contrast,
    *,
    question: CircuitQuestion | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The effect of each edge within a circuit: the circuit's metric less its metric without the edge.

    Args:
        model: the model that the circuit was found on.
        circuit: the circuit.
        prompts: the prompts to test on.
        question: source, baseline, target, metric and positions of the search; the scores' own if None.
        folder: a folder that keeps finished circuits, so that a killed call continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep over edge, in the graph's order. An edge whose interval holds 0 could be left out.

    Sign:
        Positive: the circuit needs the edge. Zero: it does not.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), section 4.2, with each edge left out alone.
    """
    passes, graph = _passes(model, circuit, prompts, question)
    if not len(circuit):
        raise EmptySelection("An empty circuit has no edge to leave out.")
    masks = circuit.mask.repeat(len(circuit) + 1, 1)
    masks[torch.arange(len(circuit), device="cpu"), circuit.edges] = False
    metrics, record = circuits_in_shards(passes, masks, _work(passes, "minimality", folder, progress))
    values = xr.DataArray(
        (metrics[:, -1:] - metrics[:, :-1]).numpy(), dims=("example", "edge"), coords={"edge": circuit.names}
    )
    sweep = _sweep(passes, values, "minimality", {"n_edges": len(graph), "size": len(circuit), **record})
    return replace(
        sweep,
        metric=f"loss of {passes.info.name}",
        clean=None,
        corrupted=None,
        zero=0.0,
        sign="positive: the circuit needs the edge; 0: it does not",
    )


# ---- parts ----------------------------------------------------------------------------------------------------------


def _passes(
    model: HookedModel,
    circuit: Circuit | EdgeScores,
    prompts: Prompts | PromptPairs | Contrast,
    question: CircuitQuestion | None,
) -> tuple[ContrastPasses, Graph]:
    """The clean and corrupted passes on new prompts, whose graph has the very same edges."""
    circuit.check(model)
    scores = circuit.scores if isinstance(circuit, Circuit) else circuit
    question = question or (None if scores is None else scores.question)
    if question is None:
        do = "give question=tv.circuits.CircuitQuestion(source=vector.replace()), with all that discover was given."
        raise InvalidArgument(
            "It is not known what the clean and the corrupted run differ in: scores from a file and "
            "circuits by hand do not say.",
            do=do,
        )
    passes = make_passes(model, prompts, question)
    ours, theirs = passes.graph, circuit.graph
    labels = [[place.label for place in graph.positions] for graph in (ours, theirs)]
    if labels[0] != labels[1] or not torch.equal(ours.edges, theirs.edges):
        do = "test on prompts of the same spans, source and target as it was found on."
        raise MisalignedPrompts(
            "These prompts have other edges than the circuit.", got=repr(ours), allowed=repr(theirs), do=do
        )
    passes.check_gap()
    return passes, ours


def _work(passes: ContrastPasses, verb: str, folder: FolderLike, progress: bool) -> Work:
    """The work of running circuits on these prompts."""
    edits = {"clean_edits": passes.clean_edits, "corrupted_edits": passes.corrupted_edits}
    config = {"contrast": passes.contrast, **edits, "metric": passes.metric, "target": passes.target}
    return Work.on(passes.model, verb, config, folder, progress)


def _sizes(circuit: Circuit | EdgeScores, sizes: Sequence[int] | None) -> list[int]:
    most = len(circuit) if isinstance(circuit, Circuit) else len(circuit.measured)
    if sizes is None:
        total = len(circuit.graph)
        shares = [min(most, max(1, round(share * total))) for share in SHARES]
        sizes = [len(circuit)] if isinstance(circuit, Circuit) else shares
    sizes = sorted({int(size) for size in sizes})
    if not sizes or sizes[0] < 1 or sizes[-1] > most:
        raise EmptySelection("There are not that many edges.", got=f"sizes {sizes}", allowed=f"1 to {most:,}")
    return sizes


def _best(circuit: Circuit | EdgeScores, size: int, by: str, grow: bool) -> Bool[Tensor, "edge"]:
    """The best edges of scores, or of a circuit that has scores."""
    if isinstance(circuit, EdgeScores):
        return (circuit.grow(size, by) if grow else circuit.top(size, by)).mask
    if circuit.scores is None:
        raise InvalidArgument(
            "This circuit has no scores, so its edges have no order.",
            got=f"sizes below {len(circuit)}",
            allowed=f"its own size, {len(circuit)}",
        )
    order = circuit.scores.order(by)
    mask = torch.zeros_like(circuit.mask)
    mask[order[circuit.mask[order]][:size]] = True
    return mask


def _random(graph: Graph, size: int, generator: torch.Generator) -> Bool[Tensor, "edge"]:
    mask = torch.zeros(len(graph), dtype=torch.bool, device="cpu")
    mask[torch.randperm(len(graph), generator=generator, device="cpu")[:size]] = True
    return mask


def _degree_matched(graph: Graph, mask: Bool[Tensor, "edge"], generator: torch.Generator) -> Bool[Tensor, "edge"]:
    """As many edges into each reader at each place as the circuit has, drawn among all that could enter it."""
    into = graph.edges[:, 0] * graph.n_readers + graph.edges[:, 2]
    wanted = torch.zeros(int(into.max()) + 1, dtype=torch.long, device="cpu").index_add_(0, into, mask.long())
    shuffled = torch.randperm(len(graph), generator=generator, device="cpu")
    grouped = shuffled[torch.sort(into[shuffled], stable=True).indices]
    groups: Int[Tensor, "edge"] = into[grouped]
    first = torch.searchsorted(groups, groups)
    drawn = grouped[torch.arange(len(graph), device="cpu") - first < wanted[groups]]
    return torch.zeros_like(mask).index_fill_(0, drawn, True)


def _sweep(passes: ContrastPasses, values: xr.DataArray, name: str, provenance: dict[str, Any]) -> Sweep:
    info = passes.info
    clean, corrupted = (metric.numpy() for metric in passes.baselines)
    task = passes.contrast.about.get("task", "the prompts")
    return Sweep(
        values,
        metric=info.name,
        units=info.units,
        sign=info.sign,
        clean=clean,
        corrupted=corrupted,
        zero=info.zero,
        name=f"{name} on {task}",
        provenance={"verb": name, **origin(passes.model), **passes.contrast.about, **provenance},
    )
