"""Claims follow the numbers that were put in; over several networks they are counted and pooled."""

from __future__ import annotations

import re

import tiny_emergence
from tv_lens.experiments.training.claims import claims_of, claims_on, claims_over
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.page import emergence_page


def test_what_was_put_in_is_what_the_claims_say(run, claims):
    verdicts = {name: one.verdict for name, one in claims.items()}
    staggered = claims["tasks are learnt one after another"]
    assert staggered.verdict == "agrees"
    assert re.match(r"basis [03] at step 1", staggered.ours) and "basis 2 at" in staggered.ours
    encoded = claims["tasks are encoded one after another"]
    assert encoded.verdict == "agrees" and re.search(r", basis 2 at .*; 5 of 6 pairs apart", encoded.ours)
    bayes = run.references.mean("shots").sel(reference="Bayes mixture")
    ratio = (run.mse().isel(step=-1).mean() / bayes.mean()).values
    best = claims["at the end every task is predicted as well as can be"]
    assert best.verdict == "agrees" and f"{run.tasks[ratio.argmax()]}: {ratio.max():.2f} [" in best.ours
    assert (
        "nearest to blind ridge, at the end to Bayes mixture"
        in claims["first one regression over all coordinates, then regression with the inferred task"].ours
    )
    assert verdicts["the task can be read off the representations at the end"] in ("agrees", "undecided")
    assert "decodability's step is" in claims["loss and decodability change together"].ours
    assert verdicts["tasks separate from the middle layers on"] == "agrees"
    assert verdicts["in the end each task's own representation helps, every other one hurts"] == "agrees"
    assert (
        "replacing x-tokens instead: own 0.90"
        in claims["in the end each task's own representation helps, every other one hurts"].control
    )
    heads = claims["some heads serve one task"]
    assert heads.verdict == "agrees" and "head 1 of layer 0 for basis 0" in heads.ours
    assert heads.ours.startswith("2 of 6 heads, for 2 tasks: ")


def test_a_network_that_learns_nothing_agrees_with_nothing():
    never = tiny_emergence.emergence(change=(99, 99, 99, 99))
    verdicts = {one.claim: one.verdict for one in claims_of(Findings(never))}
    assert verdicts["at the end every task is predicted as well as can be"] == "disagrees"
    assert verdicts["the task can be read off the representations at the end"] == "disagrees"
    assert (
        verdicts["tasks are learnt one after another"] == "not testable"
        and verdicts["loss and decodability change together"] == "not testable"
    )
    assert verdicts["first one regression over all coordinates, then regression with the inferred task"] == "disagrees"
    (encoded,) = [one for one in claims_of(Findings(never)) if one.claim == "tasks are encoded one after another"]
    assert encoded.verdict == "not testable" and encoded.ours == "the decodability of 0 of 4 tasks rises"
    emergence_page(never)


def test_seeds_are_counted_and_coupling_is_pooled(run, findings):
    together = Findings(tiny_emergence.emergence(seed=1, change=(3, 3, 3, 3)))
    (claim,) = [one for one in claims_over([findings, together]) if one.claim == "tasks are learnt one after another"]
    assert claim.verdict == "mixed: agrees in 1 of 2, disagrees in 1 of 2" and "disjoint-1: " in claim.ours
    (coupled,) = [
        one for one in claims_over([findings, together]) if one.claim == "loss and decodability change together"
    ]
    assert "8 of 8 tasks" in coupled.ours and coupled.family == "all runs"


def test_a_section_lists_its_own_claims(findings, claims):
    text = claims_on(list(claims.values()), findings, "heads")
    assert text.startswith("- The paper: some heads serve one task (l4h5 for basis 0, l4h3 for basis 2). Here: 2 of 6")
    assert text.endswith(". **Agrees**.") and text.count("\n") == 0
    assert claims_on([], findings, "heads") == ""
