"""The page of `paper`: every figure and table with its claim, the paper's number, ours, and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tv_lens.experiments.claims import RULE, Claim, counted_verdicts, counts_in_words, rule_table, verdict_table
from tv_lens.experiments.language_models.finetuning import Finetuning
from tv_lens.experiments.language_models.prediction import Prediction
from tv_lens.experiments.language_models.result import PaperResult
from tv_lens.experiments.language_models.statements import PREDICTS
from tv_lens.experiments.language_models.steering import Steering
from tv_lens.experiments.records import called, interval_of, signed_text
from tv_lens.experiments.reporting import report
from tv_lens.experiments.stages import counted, listed
from tv_lens.kinds import checks_kinds
from tv_lens.results.correlations import LEAST_EXAMPLES
from tv_lens.task_vectors.decodability_result import UNTRAINED, Decodability
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Facts, Note, Page, Section, Table, page


@report.register(PaperResult)
@checks_kinds
def paper_page(result: PaperResult) -> Page:
    """The page of a result, from the verdicts down to the figures."""
    settings, claims = result.settings, result.claims()
    counts = {verdict: count for verdict, count in counted_verdicts(claims).items() if count}
    size = f"{result.model['n_parameters'] / 1e6:.0f}M parameters"
    facts = Facts(
        {
            "Model": (result.model["name"], f"{called(result.model)}; {size}"),
            "Size": (settings["size"], f"{sum(result.seconds.values()):.0f} s this time"),
            **counts,
        }
    )
    sections = [
        Section(
            "Claims",
            facts,
            f"{RULE} The paper's numbers are those of Llama-3.1-8B.",
            Table(verdict_table(claims), "The paper's claims on this model, each beside its control."),
            Table(rule_table(claims), "What each claim was tested by, fixed before the data."),
            *_left_out(result),
        )
    ]
    for family in result.encoding:
        sections += _family(result, family)
    if result.comparison is not None:
        failed = [
            Note(f"{name} could not be measured: {why}", warn=True) for name, why in result.comparison.failed.items()
        ]
        sections.append(
            Section(
                "Checkpoints and models (Figs. 5, 6, 21, 22)",
                *failed,
                Table(result.comparison.table(), "Mean decodability and accuracy over tasks."),
            )
        )
    sections.append(Section("How it was measured", _measured(result)))
    made = "; ".join(f"{name} {version}" for name, version in result.versions.items())
    return page(
        f"Encoding and performance: {called(result.model)}",
        sections,
        lead=_lead(claims),
        footer=f"fingerprint {result.model['fingerprint']}; seed {settings['seed']}; {made}",
    )


def _lead(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, and the main one, figure 4, with its control."""
    lines = [
        "The experiments of Han et al. 2025 (arXiv 2412.12276) on pretrained language models, with controls that the "
        f"paper does not report. {counts_in_words(claims)}."
    ]
    lines += [
        f"**{one.family}: {one.claim}: {one.verdict}.** {one.ours}. Control, {one.control}."
        for one in claims
        if one.figure == PREDICTS.figure
    ]
    return "\n\n".join(lines)


def _measured(result: PaperResult) -> str:
    """Every setting in words, and what so few prompts cannot decide."""
    settings = result.settings
    shots, few = listed(settings["shots"]), min(settings["n"], settings["queries"]) < LEAST_EXAMPLES
    lines = [
        f"**Tasks**: {listed(settings['families'])}. Sentences: {settings['sentences']}. Operands: {settings['width']} "
        f"bits. Prompts show {shots} demonstrations from the train pairs, and the task's own template.",
        f"**Decodability**: {settings['n']} prompts per class and shot count, Null among the classes; a prompt counts "
        f"if most of its {settings['k']} nearest neighbours, itself left out, are of its class, by Euclidean distance "
        "of the residual stream at the last token. The layer is the one with the largest mean, chosen on the same "
        "prompts; so is the layer of the untrained network, which has the same shape and reads the same prompts.",
        f"**Accuracy**: {settings['queries']} test prompts per task and shot count; the whole answer has to be "
        "written by greedy decoding.",
        f"**Steering**: {settings['steer_queries']} test prompts per task at {settings['steer_layers']} layers, the "
        "layer reported being the one where the own mean helps most; each vector is the mean of "
        f"{settings['contexts']} train prompts and replaces the last token's activation; means were taken anew "
        f"{settings['replicates']} times.",
        f"**Finetuning**: {settings['finetune']} steps of LoRA, {settings['batch']} prompts per step, on "
        f"{settings['tuned']:.0%} of the layers: first the first ones, then the last ones."
        if result.finetuning
        else "**Finetuning**: none.",
        "**Intervals**: 95%, over prompts of this model and these draws; how each is computed is in the "
        "documentation under Statistics.",
    ]
    text = "\n".join(f"- {line}" for line in lines)
    if few:
        text += (
            f"\n\nFewer than {LEAST_EXAMPLES} prompts stand behind a point, so slopes and correlations have no limits, "
            "and claims about them stay undecided at this size."
        )
    return text


_CONTROLS = {
    "label shuffle": "shuffled",
    "surface tokens": "tokens",
    "surface characters": "characters",
    "untrained network": "untrained",
    "format kept": "in halves",
}


def _not_measured(one: Decodability) -> list[Any]:
    """Why there is no untrained network beside it; nothing where there is one."""
    if UNTRAINED in one.measured_controls:
        return []
    return [f"The untrained network of the same shape: {one.sweep.provenance.get('untrained', 'not measured')}."]


def _left_out(result: PaperResult) -> list[Any]:
    if not result.left_out:
        return []
    return ["Not run:\n\n" + "\n".join(f"- {name}: {why}" for name, why in result.left_out.items())]


def _steered(one: Steering) -> str:
    """The effects of steering at the best layer, the controls among them, in words."""
    layer = one.best_layer()
    effects = one.effects().sel(layer=layer).mean("task")
    words = {
        "own": "the task's own mean",
        "null": "Null's mean",
        "other": "another task's mean",
        "random": "a random vector",
    }
    parts = [f"{words[name]} {signed_text(interval_of(effects.sel(condition=name)))}" for name in words]
    before = float(one.sweep.sel(condition="none", layer=layer).mean().mean())
    return (
        f"The last token's activation after layer {layer} is replaced. Accuracy is {before:.2f} without that, and "
        f"changes with {', '.join(parts)} (mean over tasks, {counted(one.replicates, 'draw')} of the means)."
    )


def _fitted(one: Prediction) -> str:
    """The line as in the paper, and beyond what the controls explain."""
    return "\n\n".join(
        f"{words}: {fit!r}".replace("R2", "R²")
        for words, fit in (
            ("As in the paper", one.fit()),
            ("Beyond what the answers alone tell", one.fit(controlled=True)),
            ("Within shot counts", one.fit(within_shots=True)),
        )
    )


def _family(result: PaperResult, family: str) -> list[Section]:
    encoding, prediction = result.encoding[family], result.prediction[family]
    maps = [plot(one, title=f"{shots} shots, layer {encoding.layer}") for shots, one in encoding.maps.items()]
    many = max(encoding.shots)
    sections = [
        Section(
            f"{family}: encoding (Figs. 3, 19, 23)",
            plot(
                encoding.decodability.beside(),
                title="Decodability by layer, mean over tasks, and its controls",
                mark=encoding.layer,
            ),
            Table(
                encoding.table().drop(columns="layer"),
                f"Decodability at layer {encoding.layer}, the band of chance, and the controls. The last two columns "
                "let only halves of the prompts vote, as they are and without what their format explains.",
                headings=_CONTROLS,
            ),
            *_not_measured(encoding.decodability),
            Table(
                encoding.pairwise(many).reset_index(),
                f"Pair by pair at {many} shots: the row's task beside the column's; chance is 0.5.",
            ),
            *maps,
        )
    ]
    sections.append(
        Section(
            f"{family}: decodability and accuracy (Fig. 4)",
            _fitted(prediction),
            plot(prediction),
            Table(prediction.points()),
        )
    )
    if family in result.steering:
        one = result.steering[family]
        sections.append(
            Section(
                f"{family}: steering (Fig. 20)",
                _steered(one),
                plot(one),
                Table(
                    one.effects().sel(layer=one.best_layer()).to_frame().drop(columns="n"),
                    f"Change in accuracy at layer {one.best_layer()}, by task.",
                ),
            )
        )
    if family in result.instruction:
        sections.append(
            Section(
                f"{family}: instruction (Figs. 25, 26)",
                Table(result.instruction[family].table(), "Without and with a sentence that states the task."),
            )
        )
    if family in result.finetuning:
        sections.append(_finetuned(result.finetuning[family], family))
    return sections


def _finetuned(one: Finetuning, family: str) -> Section:
    """Decodability and accuracy before and after tuning, and the losses of both variants."""
    losses = "; ".join(
        f"{name}: {', '.join(f'{loss:.3f}' for loss in stretches)}" for name, stretches in one.losses.items()
    )
    return Section(
        f"{family}: finetuning (Table 1, Fig. 24)",
        Table(one.table(), "Before and after, at equal budgets."),
        f"Losses: {losses}.",
    )
