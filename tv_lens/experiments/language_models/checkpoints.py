"""Figures 5, 6, 21 and 22: the same measurement over the checkpoints of one model, or over several models."""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from tv_lens.errors import EmptySelection, RunMismatch, StorageError, TVLensError, unknown
from tv_lens.experiments.language_models.prediction import Prediction, encoding_against_accuracy
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.correlations import LEAST_GROUPS, NONE, jackknife_limits, resampled_limits
from tv_lens.results.differences import independent
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.representations import Tasks

Source = str | os.PathLike[str] | HookedModel
# The steps of published pretraining runs, which are revisions of their hub names.
_PYTHIA = (0, *(2**i for i in range(10)), *range(1000, 144000, 1000))
_OLMO_TOKENS = 2160 * 2048  # per step
LEAST_SOURCES = LEAST_GROUPS
"""From how many models or checkpoints on a correlation over them has limits."""
_MOST_ORDERS, _DRAWN_ORDERS = 5040, 5000  # up to so many rearrangements all are tried; of more, so many are drawn


class WithinShots(NamedTuple):
    """How mean decodability and mean accuracy go together over sources, each shot count less its own mean.

    Args:
        correlation: Pearson's, over sources and shot counts; NaN where a side does not vary.
        sources: how many there are.
        over_prompts, over_sources: limits, for other prompts and for other sources; NaN where there are none.
        p: the share of rearrangements of the sources with at least this correlation.
        rearranged: how many were tried.
    """

    correlation: float
    sources: int
    over_prompts: tuple[float, float]
    over_sources: tuple[float, float]
    p: float
    rearranged: int


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
        """One row per source, family and shot count: mean decodability and accuracy, strongest control."""
        rows = []
        for source, by_family in self.predictions.items():
            for family, one in by_family.items():
                for shots in one.accuracy.values["shots"].values.tolist():
                    td = one.decodability.sel(layer=one.layer, shots=shots, task=list(one.decodability.tasks))
                    strongest, votes = one.decodability.strongest_control(shots)
                    numbers: dict[str, Any] = {}
                    for name, sweep in (("TD", td), ("accuracy", one.accuracy.sel(shots=shots))):
                        interval = sweep.mean("task").interval(level)
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
                            "strongest control": strongest,
                            "TD of it": float(votes.mean()),
                        }
                    )
        return pd.DataFrame(rows)

    def accuracy(self, family: str) -> Sweep:
        """Exact match over tasks, `example source shots`."""
        return self._joined(
            {name: by_family[family].accuracy.mean("task") for name, by_family in self.predictions.items()}
        )

    def decodability(self, family: str) -> Sweep:
        """Decodability over tasks at each source's own best layer, `example source shots`."""
        best = {name: found[family] for name, found in self.predictions.items()}
        return self._joined({name: one.decodability.over_tasks().sel(layer=one.layer) for name, one in best.items()})

    def correlation(self, family: str) -> float:
        """Pearson's correlation of mean decodability and mean accuracy over sources, within shot counts.

        More demonstrations raise both, so each shot count is taken less its mean over sources. NaN if there are fewer
        than three sources, or one side does not vary.
        """
        return self.within_shots(family).correlation

    def within_shots(self, family: str, *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> WithinShots:
        """The same with its limits over prompts and over sources, and a permutation test.

        Args:
            family: by its name.
            level: of the limits.
            n_boot: resamples of prompts.
            seed: fixes the resamples, and the rearrangements where there are too many to try all.
        """
        points = [by_family[family] for by_family in self.predictions.values()]
        td, acc = (np.stack([_grid(one, side) for one in points]) for side in ("TD", "accuracy"))  # source task shots
        n, random = len(points), np.random.default_rng(seed)
        here = float(_correlation(td.mean(1), acc.mean(1)))
        if n < 3 or not np.isfinite(here):
            return WithinShots(float("nan"), n, NONE, NONE, float("nan"), 0)
        examples = [min(one.decodability.sweep.n for one in points), min(one.accuracy.n for one in points)]
        draws = [  # a bootstrap of hits is a binomial draw
            random.binomial(count, np.clip(side, 0, 1), size=(n_boot, *side.shape)).mean(2) / count
            for side, count in zip((td, acc), examples)
        ]
        over_prompts = resampled_limits(
            here, _correlation(*draws), (n - 1) * td.shape[-1] + 1, min(examples), level, correlation=True
        )
        rest = [np.delete(np.arange(n), i) for i in range(n)]
        without = np.array([_correlation(td[one].mean(1), acc[one].mean(1)) for one in rest])
        if math.factorial(n) <= _MOST_ORDERS:
            orders = np.array(list(permutations(range(n))))
        else:
            orders = np.stack([np.arange(n), *(random.permutation(n) for _ in range(_DRAWN_ORDERS))])
        rearranged = _correlation(np.broadcast_to(td.mean(1), (len(orders), n, td.shape[-1])), acc.mean(1)[orders])
        p = float((rearranged >= here - 1e-12).mean())
        return WithinShots(here, n, over_prompts, jackknife_limits(here, without, level), p, len(orders))

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


def _grid(one: Prediction, side: str) -> Float[np.ndarray, "task shots"]:
    """Decodability or accuracy of every task at every shot count."""
    return one.points().pivot(index="task", columns="shots", values=side).to_numpy(float)


def _correlation(
    td: Float[np.ndarray, "*draw source shots"], acc: Float[np.ndarray, "*draw source shots"]
) -> Float[np.ndarray, "*draw"]:
    """Pearson's correlation over sources and shot counts, each count less its mean over sources."""
    x, y = (side - side.mean(-2, keepdims=True) for side in (td, acc))
    xx, yy, xy = ((one * other).sum((-2, -1)) for one, other in ((x, x), (y, y), (x, y)))
    still = (xx < 1e-12) | (yy < 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(still, np.nan, xy / np.sqrt(xx * yy))


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
