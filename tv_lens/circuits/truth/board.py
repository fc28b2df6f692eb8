"""Discovery methods scored against the known circuits, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.acdc import ACDC
from tv_lens.circuits.circuit import EdgeScores
from tv_lens.circuits.discovery import discover
from tv_lens.circuits.eap import EAP, EAPIG
from tv_lens.circuits.exact_edges import ExactEdges
from tv_lens.circuits.truth.absolute import first_of_class, induction
from tv_lens.circuits.truth.known import Truth
from tv_lens.circuits.truth.relative import task_switch, task_switch_decoding, two_steps
from tv_lens.renamed import renamed_keywords

TRUTHS: tuple[Callable[..., Truth], ...] = (induction, first_of_class, two_steps, task_switch, task_switch_decoding)


@renamed_keywords(positions="pos=")
def scoreboard(
    methods: Mapping[str, Any] | Sequence[Any] | None = None,
    truths: Sequence[Truth] | None = None,
    *,
    pos: str = "all",
    progress: bool = False,
) -> pd.DataFrame:
    """A table with a row per known circuit and method: how well its scores separate the circuit's edges from others.

    Edges are compared as writer and reader, a pair's score being its largest at any position; a node's score is that of
    its best edge out. Precision and recall are those of the `k` best where `k` is the true number, so that the two are
    one number; for a method that chooses edges itself (ACDC), they are those of its own choice.

    Args:
        methods: values such as `tv.circuits.EAP()`, or names to values; ExactEdges, EAP, two EAPIGs and ACDC if None.
        truths: known circuits; all of them if None.
        pos: how finely edges are separated by position during discovery, as `discover` takes it.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        Columns `circuit method edges known`, then `edge_` and `node_` with `precision recall auroc`.

    Example:
        >>> table = scoreboard({"exact": ExactEdges()}, [task_switch_decoding(n=2)])
        >>> table[["circuit", "known", "edge_precision", "edge_auroc"]].values.tolist()
        [['task switch, decoding', 2, 1.0, 1.0]]
    """
    if methods is None:
        methods = {
            "ExactEdges": ExactEdges(),
            "EAP": EAP(),
            "EAPIG inputs, 5 steps": EAPIG(steps=5),
            "EAPIG activations, 5 steps": EAPIG(steps=5, where="activations"),
            "ACDC 0.05": ACDC(0.05),
        }
    if not isinstance(methods, Mapping):
        methods = {repr(method): method for method in methods}
    rows = []
    for known in [make() for make in TRUTHS] if truths is None else truths:
        for name, method in methods.items():
            where = {} if known.source is not None else {"pos": pos}
            scores = discover(
                known.model,
                known.prompts,
                source=known.source,
                metric=known.metric,
                method=method,
                progress=progress,
                **where,
            )
            rows.append(
                {"circuit": known.name, "method": name, **compared(known, scores, method.own_choice(scores.mean()))}
            )
    return pd.DataFrame(rows)


def compared(known: Truth, found: EdgeScores, chosen: Bool[Tensor, "edge"] | None = None) -> dict[str, Any]:
    """Precision, recall and AUROC of scores against a known circuit, for edges and for nodes.

    Args:
        known: the circuit.
        found: scores of its model's edges; an edge that was not measured counts as 0.
        chosen: the method's own choice of edges; the best `k` if None.

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth.absolute import induction
        >>> known = induction(n=4)
        >>> found = compared(known, discover(known.model, known.prompts, progress=False))
        >>> found["edge_precision"]
        1.0
    """
    graph, sizes = found.graph, found.mean().abs().nan_to_num(0.0)
    truth = known.mask(graph)
    pairs, pair = graph.edges[:, 1:].unique(dim=0, return_inverse=True)
    of_pair = _largest(sizes, pair, len(pairs))
    true_pair = _largest(truth.float(), pair, len(pairs)) > 0
    own_pair = None if chosen is None else _largest(chosen.float(), pair, len(pairs)) > 0
    inner = [i for i, name in enumerate(graph.writers) if name not in ("input", "source")]
    place = torch.full((graph.n_writers,), -1, dtype=torch.long, device="cpu")
    place[inner] = torch.arange(len(inner), device="cpu")
    of_node = place[pairs[:, 0]]
    counted = of_node >= 0

    def nodes(values: Float[Tensor, "pair"]) -> Float[Tensor, "node"]:
        return _largest(values[counted], of_node[counted], len(inner))

    own_node = None if own_pair is None else nodes(own_pair.float()) > 0
    edge = _measures(of_pair, true_pair, own_pair)
    node = _measures(nodes(of_pair), nodes(true_pair.float()) > 0, own_node)
    return {
        "edges": len(pairs),
        "known": int(true_pair.sum()),
        **{f"edge_{k}": v for k, v in edge.items()},
        **{f"node_{k}": v for k, v in node.items()},
    }


def auroc(scores: Float[Tensor, "n"], truth: Bool[Tensor, "n"]) -> float:
    """The chance that a true one scores above a false one, ties counted half.

    Example:
        >>> auroc(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, False, False]))
        0.75
    """
    high, low = scores[truth][:, None], scores[~truth][None, :]
    return float(((high > low).double() + 0.5 * (high == low).double()).mean())


def _largest(values: Float[Tensor, "n"], group: Tensor, n_groups: int) -> Float[Tensor, "group"]:
    return torch.zeros(n_groups, dtype=values.dtype, device="cpu").scatter_reduce_(0, group, values, "amax")


def _measures(
    scores: Float[Tensor, "n"], truth: Bool[Tensor, "n"], chosen: Bool[Tensor, "n"] | None
) -> dict[str, float]:
    if chosen is None:
        chosen = torch.zeros_like(truth)
        chosen[scores.sort(descending=True, stable=True).indices[: int(truth.sum())]] = True
    hits = float((chosen & truth).sum())
    return {
        "precision": round(hits / max(1, int(chosen.sum())), 4),
        "recall": round(hits / int(truth.sum()), 4),
        "auroc": round(auroc(scores, truth), 4),
    }
