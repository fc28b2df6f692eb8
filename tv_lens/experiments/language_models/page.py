"""The page of `paper`: every figure and table with its claim, the paper's number, ours, and the controls."""

from __future__ import annotations

from typing import Any

from tv_lens.experiments.language_models.result import PaperResult
from tv_lens.experiments.records import called
from tv_lens.experiments.reporting import report
from tv_lens.kinds import checks_kinds
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Facts, Note, Page, Section, Table, page


@report.register(PaperResult)
@checks_kinds
def paper_page(result: PaperResult) -> Page:
    """The page of a result, from the verdicts down to the figures."""
    table, settings = result.table(), result.settings
    counts = table["verdict"].value_counts()
    size = f"{result.model['n_parameters'] / 1e6:.0f}M parameters"
    facts = Facts(
        {
            "Model": (result.model["name"], f"{called(result.model)}; {size}"),
            "Size": (settings["size"], f"{sum(result.seconds.values()):.0f} s this time"),
            **{word: int(counts.get(word, 0)) for word in ("agrees", "disagrees", "undecided")},
        }
    )
    note = (
        "A claim **agrees** if our 95% interval lies on the claimed side of 0, **disagrees** if it lies on the other "
        "side, and is **undecided** if it contains 0. Intervals are over prompts; the paper's numbers are those of "
        "Llama-3.1-8B."
    )
    sections = [Section("Claims", facts, note, Table(table, "The paper's claims on this model."), *_left_out(result))]
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
    made = "; ".join(f"{name} {version}" for name, version in result.versions.items())
    lead = (
        "The experiments of Han et al. 2025 (arXiv 2412.12276) on pretrained language models, with controls that the "
        f"paper does not report. Sentences: {settings['sentences']}. Operands: {settings['width']} bits."
    )
    return page(
        f"Encoding and performance: {called(result.model)}",
        sections,
        lead=lead,
        footer=f"fingerprint {result.model['fingerprint']}; seed {settings['seed']}; {made}",
    )


_CONTROLS = {"label shuffle": "shuffled", "surface tokens": "tokens", "surface characters": "characters"}


def _left_out(result: PaperResult) -> list[Any]:
    if not result.left_out:
        return []
    return ["Not run:\n\n" + "\n".join(f"- {name}: {why}" for name, why in result.left_out.items())]


def _family(result: PaperResult, family: str) -> list[Section]:
    encoding, prediction = result.encoding[family], result.prediction[family]
    maps = [plot(one, title=f"{shots} shots, layer {encoding.layer}") for shots, one in encoding.maps.items()]
    many = max(encoding.shots)
    sections = [
        Section(
            f"{family}: encoding (Figs. 3, 19, 23)",
            plot(
                encoding.decodability.over_tasks(), title="Decodability by layer, mean over tasks", mark=encoding.layer
            ),
            Table(
                encoding.table().drop(columns="layer"),
                f"Decodability at layer {encoding.layer}, the band of chance, and the controls.",
                headings=_CONTROLS,
            ),
            Table(
                encoding.pairwise(many).reset_index(),
                f"Pair by pair at {many} shots: the row's task beside the column's; chance is 0.5.",
            ),
            *maps,
        )
    ]
    fits = f"{prediction.fit()!r}\n\nBeyond what the answers alone tell: {prediction.fit(controlled=True)!r}"
    sections.append(
        Section(f"{family}: decodability and accuracy (Fig. 4)", fits, plot(prediction), Table(prediction.points()))
    )
    if family in result.steering:
        one = result.steering[family]
        sections.append(
            Section(
                f"{family}: steering (Fig. 20)",
                f"`{one!r}`",
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
        one = result.finetuning[family]
        losses = "; ".join(
            f"{name}: {', '.join(f'{loss:.3f}' for loss in stretches)}" for name, stretches in one.losses.items()
        )
        sections.append(
            Section(
                f"{family}: finetuning (Table 1, Fig. 24)",
                Table(one.table(), "Before and after, at equal budgets."),
                f"Losses: {losses}.",
            )
        )
    return sections
