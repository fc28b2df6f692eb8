"""The page of `emergence`: the paper's figures on networks trained from scratch, with claims, numbers and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.claims import Claim, counts_in_words, verdict_table
from tv_lens.experiments.folders import json_text
from tv_lens.experiments.records import as_json
from tv_lens.experiments.reporting import report
from tv_lens.experiments.stages import counted, listed
from tv_lens.experiments.training import causal_sections as causal_part
from tv_lens.experiments.training import sections as part
from tv_lens.experiments.training.claims import claims_of, claims_over
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.result import Emergence
from tv_lens.experiments.training.timing import pooled
from tv_lens.kinds import checks_kinds
from tv_lens.storage.atomic import atomic_write
from tv_lens.viz.html import Link, Page, Section, Table, page
from tv_lens.viz.theme import interval_text


@report.register(Emergence)
@checks_kinds
def emergence_page(result: Emergence | Sequence[Emergence]) -> Page:
    """The page of one network, or of several seeds of one family side by side.

    Args:
        result: one result; or several, of which the first is shown in full.

    Raises:
        EmptySelection: there is no result.
        InvalidArgument: the networks are of different families.
    """
    return page_of([Findings(one) for one in _runs(result)])


def page_of(networks: Sequence[Findings]) -> Page:
    """The page of networks of one family, of which the first is shown in full."""
    first = networks[0]
    claims = claims_over(networks)
    coupling = first.coupling if len(networks) == 1 else pooled([one.points for one in networks])
    sections = [
        Section("Claims", *part.summary(networks, claims, coupling)),
        Section(f"Training, step by step ({first.figures['training']})", *part.training(first, claims)),
        *part.seeds(networks),
        Section(f"Loss and decodability ({first.figures['timing']})", *part.timing(first, claims, coupling)),
        Section(f"Decodability by layer ({first.figures['layers']})", *part.layers(first, claims)),
        *causal_part.patching(first, claims),
        *causal_part.heads(first, claims),
        *part.posterior(first.result),
        *causal_part.circuits(first.result),
        Section("How it was measured", *part.measured(first.result)),
    ]
    made = "; ".join(f"{name} {version}" for name, version in first.result.versions.items())
    names = listed([one.result.name for one in networks])
    return page(
        f"Emergence: {names}",
        sections,
        lead=_lead(first.result, claims),
        footer=f"Made {first.result.created}; fingerprint {first.result.model.get('fingerprint', '')}; {made}",
        compress=True,
    )


def _runs(result: Emergence | Sequence[Emergence]) -> list[Emergence]:
    runs = [result] if isinstance(result, Emergence) else list(result)
    if not runs:
        raise EmptySelection("A page needs a run.", got="0 runs")
    for one in runs[1:]:
        if one.family != runs[0].family:
            raise InvalidArgument(
                "Runs on one page are of one family: they differ in their seed alone.",
                got=f"{runs[0].name}: {runs[0].family!r}\n{one.name}: {one.family!r}",
                do="make a page of each.",
            )
    return runs


def _lead(result: Emergence, claims: Sequence[Claim]) -> str:
    """What was trained, how many claims have which verdict, and the first claim on decodability with its control."""
    family, model = result.family, result.model
    text = (
        f"A transformer of {model['n_layers']} layers ({model['n_parameters'] / 1e6:.2g}M parameters) was trained "
        f"from scratch on {counted(family.n_tasks, 'kind')} of regression tasks in context. When does it distinguish "
        "them, when does it use that, and where? The experiments are those of Han et al. 2025 (arXiv 2412.12276), "
        "section 3 and appendices, with the controls and intervals that the paper lacks. "
        f"{counts_in_words(claims)}."
    )
    main = next((one for one in claims if "td" in {condition.key for condition in one.conditions}), None)
    if main is None:
        return text
    numbers = "; ".join((main.missing or main.ours).splitlines())
    claim, control = main.claim[:1].upper() + main.claim[1:], main.control.replace("\n", " ")
    return f"{text}\n\n**{claim}: {main.verdict}.** Here: {numbers}. Control: {control}."


# ------------------------------------------------------------------------------------------------- several families


def index_page(families: Mapping[str, Sequence[Findings]], files: Mapping[str, str]) -> Page:
    """A page over the pages of several families.

    Args:
        families: the networks of each family by its name, such as "bases4".
        files: the page of each name, relative to this one.
    """
    rows, every = [], []
    for name, networks in families.items():
        results = [one.result for one in networks]
        claims = claims_over(networks)
        coupled = pooled([one.points for one in networks])
        last = pd.concat([one.result.table() for one in networks])
        factors = [2**one for one in (coupled.lag, coupled.low, coupled.high)]
        factor = interval_text(*factors, why=coupled.why) if coupled.n_changed else "–"
        rows.append(
            {
                "run": Link(name, files[name]),
                "tasks": len(results[0].tasks),
                "seeds": len(results),
                "last step": results[0].steps[-1],
                "MSE / Bayes": _mean(last, "MSE / Bayes"),
                "TD": sum(float(one.td_curve().isel(step=-1).mean().mean()) for one in results) / len(results),
                "chance": results[0].chance(),
                "TD's step / loss's": factor,
                "claims": counts_in_words(claims),
            }
        )
        every.append(verdict_table(claims).drop(columns="family").assign(run=name))
    table = pd.concat(every)[["run", *every[0].columns[:-1]]]
    return page(
        "Emergence: every run",
        [
            Section(
                "Runs",
                Table(
                    pd.DataFrame(rows),
                    "One row per family; numbers are those of the last checkpoint, mean over tasks and seeds.",
                ),
            ),
            Section(
                "Claims",
                part.VERDICTS,
                Table(
                    table,
                    "The paper's claims, run by run.",
                    headings={"figure": "paper's figure", "control": "control or caveat"},
                ),
            ),
        ],
        lead="Networks trained from scratch on mixtures of regression tasks, and what the paper claims of them.",
        compress=True,
    )


def _mean(table: pd.DataFrame, name: str) -> float | None:
    return float(table[name].mean()) if name in table else None


def write_index(families: Mapping[str, Sequence[Findings]], files: Mapping[str, str], out: Path) -> Path:
    """Writes the page over several families as `index.html` into a folder; returns its path."""
    return index_page(families, files).save(out / "index.html")


def write_page(networks: Sequence[Findings], path: Path) -> Path:
    """Writes the page of the networks of a family, and their numbers beside it as JSON; returns the page's path."""
    _runs([one.result for one in networks])
    runs = [
        {**one.result.summary(), "claims": as_json([claim.record() for claim in claims_of(one)])} for one in networks
    ]
    over = as_json([claim.record() for claim in claims_over(networks)])
    numbers = runs[0] if len(runs) == 1 else {"format": "tv_lens.emergence/1", "runs": runs, "claims": over}
    text, drawn = json_text(numbers), page_of(networks)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path.with_suffix(".json"), text)
    return drawn.save(path)
