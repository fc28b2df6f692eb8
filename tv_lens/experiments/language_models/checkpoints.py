"""Figures 5, 6, 21 and 22: the same measurement over the checkpoints of one model, or over several models."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.errors import EmptySelection, RunMismatch, StorageError, TVLensError, unknown
from tv_lens.experiments.language_models.prediction import Prediction, encoding_against_accuracy
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.differences import independent
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.representations import Tasks

Source = str | os.PathLike[str] | HookedModel
# The steps of published pretraining runs, which are revisions of their hub names.
_PYTHIA = (0, *(2**i for i in range(10)), *range(1000, 144000, 1000))
_OLMO_TOKENS = 2160 * 2048  # per step


@checks_kinds
def known_revisions(name: str, steps: Sequence[int]) -> list[str]:
    """`name@revision` for steps of a published pretraining run, as `across_models` takes them.

    Args:
        name: a hub name of the Pythia or OLMo-7B family.
        steps: Pythia has 0, 1, 2, 4, ... 512 and every thousandth to 143000; OLMo-7B every thousandth.

    Example:
        >>> known_revisions("EleutherAI/pythia-160m", [0, 1000])
        ['EleutherAI/pythia-160m@step0', 'EleutherAI/pythia-160m@step1000']
        >>> known_revisions("allenai/OLMo-7B", [1000])
        ['allenai/OLMo-7B@step1000-tokens4B']
    """
    short = name.rpartition("/")[2].lower()
    if short.startswith("pythia"):
        for step in steps:
            if step not in _PYTHIA:
                raise unknown("step of a Pythia model", step, _PYTHIA)
        return [f"{name}@step{step}" for step in steps]
    if short.startswith("olmo-7b"):
        return [f"{name}@step{step}-tokens{round(step * _OLMO_TOKENS / 1e9)}B" for step in steps]
    raise unknown(
        "model with known revisions",
        name,
        ("EleutherAI/pythia-...", "allenai/OLMo-7B"),
        do="write name@revision yourself, or give folders",
    )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The same families measured on several models or checkpoints.

    Args:
        predictions: by source, then by family.
        failed: why a source could not be measured, by source.
    """

    predictions: dict[str, dict[str, Prediction]]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that were measured, in the order they were given."""
        return tuple(self.predictions)

    @property
    def families(self) -> tuple[str, ...]:
        """The families of tasks, by name."""
        return tuple(next(iter(self.predictions.values())))

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per source, family and shot count: mean decodability and accuracy over tasks, with limits."""
        rows = []
        for source, by_family in self.predictions.items():
            for family, one in by_family.items():
                for shots in one.accuracy.values["shots"].values.tolist():
                    td = one.decodability.sel(layer=one.layer, shots=shots, task=list(one.decodability.tasks))
                    numbers: dict[str, Any] = {}
                    for name, sweep in (("TD", td), ("accuracy", one.accuracy.sel(shots=shots))):
                        interval = sweep.average("task").interval(level)
                        numbers |= {
                            name: float(interval["mean"]),
                            f"{name} low": float(interval["low"]),
                            f"{name} high": float(interval["high"]),
                        }
                    rows.append(
                        {
                            "source": source,
                            "step": step_of(source),
                            "family": family,
                            "shots": shots,
                            "layer": one.layer,
                            **numbers,
                        }
                    )
        return pd.DataFrame(rows)

    def accuracy(self, family: str) -> Sweep:
        """Exact match over tasks, `example source shots`."""
        return self._joined(
            {name: by_family[family].accuracy.average("task") for name, by_family in self.predictions.items()}
        )

    def decodability(self, family: str) -> Sweep:
        """Decodability over tasks at each source's own best layer, `example source shots`."""
        best = {name: found[family] for name, found in self.predictions.items()}
        return self._joined({name: one.decodability.over_tasks().sel(layer=one.layer) for name, one in best.items()})

    def correlation(self, family: str) -> float:
        """Pearson's correlation of mean decodability and mean accuracy over sources and shot counts.

        NaN if there are fewer than three points, or one side does not vary.
        """
        table = self.table()
        table = table[table["family"] == family]
        if len(table) < 3 or table["TD"].std() == 0 or table["accuracy"].std() == 0:
            return float("nan")
        return float(np.corrcoef(table["TD"], table["accuracy"])[0, 1])

    def _joined(self, sweeps: Mapping[str, Sweep]) -> Sweep:
        first = next(iter(sweeps.values()))
        values = xr.concat(
            [independent(one).astype(float).drop_vars("layer", errors="ignore") for one in sweeps.values()],
            pd.Index(list(sweeps), name="source"),
            coords="minimal",
            compat="override",
        )
        axes = [axis for axis in first.axes if axis != "source"]
        return Sweep(
            values.transpose("example", "source", *axes),
            first.metric,
            first.units,
            first.sign,
            zero=first.zero,
            name=f"{first.metric} over {len(sweeps)} sources",
            provenance={"sources": list(sweeps), "failed": self.failed},
        )

    def __repr__(self) -> str:
        lines = [
            f"Comparison of {len(self.sources)} sources on {', '.join(self.families)}",
            self.table().round(3).to_string(index=False),
        ]
        return "\n".join(lines + [f"failed: {name}: {why}" for name, why in self.failed.items()])


@renamed_keywords(run="folder=")
@checks_kinds
def across_models(
    sources: Sequence[Source],
    families: Mapping[str, Tasks],
    *,
    shots: Sequence[int] = (1, 4, 10),
    n: int = 100,
    queries: int = 100,
    k: int = 10,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    loading: Mapping[str, Any] | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Comparison:
    """A `Comparison`: decodability and accuracy of families, model by model, with one model in memory at a time.

    Args:
        sources: what `tv.load` takes; `name@revision` for a revision of a hub name; or models that are loaded. If one
            cannot be loaded or measured, `.failed` says why, and the others are measured all the same.
        families: tasks by the family's name.
        shots: demonstrations per prompt.
        n: prompts per task for decodability.
        queries: test prompts per task and shot count.
        k: neighbours that vote.
        layers: the layers to choose from, as far as a model has them; all if None.
        seed: fixes every draw.
        loading: further arguments of `tv.load`, such as `dtype`, `device_map`.
        folder: a folder that keeps finished work, model by model.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Raises:
        EmptySelection: no source could be measured; the error says why, source by source.

    Source:
        Han et al. 2025 (arXiv 2412.12276), figures 5 and 6 (OLMo-7B from 1,000 to 500,000 steps, 4 shots), 21 and 22.
    """
    predictions: dict[str, dict[str, Prediction]] = {}
    failed: dict[str, str] = {}
    with progress_bar("models", len(sources), "models", progress) as bar:
        for source in sources:
            label = source.name if isinstance(source, HookedModel) else str(source)
            try:
                model = source if isinstance(source, HookedModel) else _loaded(label, dict(loading or {}))
                known = None if layers is None else [layer for layer in layers if layer < model.n_layers]
                predictions[label] = {
                    name: encoding_against_accuracy(
                        model,
                        tasks,
                        shots=shots,
                        n=n,
                        queries=queries,
                        k=k,
                        layers=known,
                        seed=seed,
                        folder=inside(folder, _folder(label), name),
                        progress=progress,
                    )
                    for name, tasks in families.items()
                }
            except (RunMismatch, StorageError):  # about the folder, not about this model
                raise
            except TVLensError as error:
                failed[label] = f"{error.what} {error.got or ''}".strip()
            except Exception as error:  # an unknown checkpoint may raise anything: the others are not lost
                failed[label] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            model = None
            gc.collect()
            bar.advance()
    if not predictions:
        raise EmptySelection(
            "None of the models could be measured.",
            got="; ".join(f"{k}: {v}" for k, v in failed.items()),
            allowed="one or more that load",
        )
    return Comparison(predictions, failed)


def step_of(label: str) -> int | None:
    """The training step in a checkpoint's name; None if there is none.

    Example:
        >>> step_of("EleutherAI/pythia-160m@step1000"), step_of("run/checkpoint-300"), step_of("gpt2")
        (1000, 300, None)
    """
    match = re.search(r"(?:step|checkpoint)[-_ ]?(\d+)", label)
    return None if match is None else int(match.group(1))


def _loaded(label: str, loading: dict[str, Any]) -> HookedModel:
    name, _, revision = label.partition("@") if not os.path.exists(label) else (label, "", "")
    return load(name, name=label, **({"revision": revision} if revision else {}), **loading)


def _folder(label: str) -> str:
    return label.strip("/").replace("/", "-").replace("@", "-")
