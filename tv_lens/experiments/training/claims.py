"""The paper's claims on networks trained from scratch, by kind of family: on one network, and over several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tv_lens.experiments.claims import Claim
from tv_lens.experiments.training.causal_claims import shared, signs_last, signs_middle, tied
from tv_lens.experiments.training.decodability_claims import encoded, groups, layers, overlap, within
from tv_lens.experiments.training.findings import DISJOINT, FUNCTIONS, MORE, OTHER, OVERLAPPING, Findings
from tv_lens.experiments.training.loss_claims import algorithm, learnt, not_learnt, optimal
from tv_lens.experiments.training.timing import pooled
from tv_lens.experiments.training.timing_claims import (
    alike_losses,
    coupled,
    encoded_in_turn,
    paired,
    staggered,
    with_groups,
)


def claims_of(findings: Findings) -> list[Claim]:
    """The claims that the paper makes about a network's kind of family, in the order of the page."""
    return [claim for make in _OF_KIND[findings.kind] if (claim := make(findings)) is not None]


def claims_over(networks: Sequence[Findings]) -> list[Claim]:
    """The claims over several networks of one family: the numbers of each, and one verdict; coupling is pooled."""
    if len(networks) == 1:
        return claims_of(networks[0])
    by_network = [{one.claim: one for one in claims_of(network)} for network in networks]
    coupling = pooled([network.points for network in networks])
    joint = {one.claim: one for one in (coupled(networks[0], coupling), paired(networks[0], coupling))}
    rows = []
    for claim in dict.fromkeys(name for claims in by_network for name in claims):
        if claim in joint:
            rows.append(replace(joint[claim], family="all runs"))
        else:
            rows.append(Claim.over([claims[claim] for claims in by_network if claim in claims], "all runs"))
    return rows


def claims_on(claims: Sequence[Claim], findings: Findings, figure: str) -> str:
    """The claims on one figure as a list: the paper's words, the numbers here, and the verdict."""
    lines = []
    for claim in (claim for claim in claims if claim.figure == findings.figures[figure]):
        numbers = claim.missing or claim.ours
        ours = "" if "\n" in numbers else f" Here: {numbers}."  # of several networks: in the table above
        lines.append(f"- The paper: {claim.claim} ({claim.paper}).{ours} **{claim.verdict.capitalize()}**.")
    return "\n".join(lines)


_LATER = (coupled, paired, encoded_in_turn, layers, signs_middle, signs_last)
_OF_BASES = (staggered, optimal, algorithm, encoded, *_LATER, tied)
_OF_KIND: dict[str, tuple[Callable[[Findings], Claim | None], ...]] = {
    DISJOINT: _OF_BASES,
    MORE: _OF_BASES,
    OTHER: _OF_BASES,
    OVERLAPPING: (alike_losses, groups, within, with_groups),
    FUNCTIONS: (learnt, not_learnt, overlap, shared),
}
