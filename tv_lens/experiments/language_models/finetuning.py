"""Table 1 and figure 24: what finetuning the first or the last layers does to encoding and accuracy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.lora import LoRA, peft_library, trained
from tv_lens.experiments.language_models.performance import accuracies, tasks_of
from tv_lens.experiments.language_models.prediction import Prediction, encoding_against_accuracy
from tv_lens.kinds import checks_kinds
from tv_lens.loading.weights import load_from, locate
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task

PRETRAINED = "pretrained"


@dataclass(frozen=True, eq=False, repr=False)
class Finetuning:
    """Encoding and accuracy before finetuning and after.

    Args:
        predictions: by variant: "pretrained", "first k layers", "last k layers".
        losses: the mean loss of every `LoRA.every` steps, by variant.
        layers: the layers that were tuned, by variant.
    """

    predictions: dict[str, Prediction]
    losses: dict[str, list[float]]
    layers: dict[str, list[int]]

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per variant: accuracy and decodability over tasks, at the pretrained model's best layer and its own.

        Decodability at the pretrained model's layer cannot change if only later layers were tuned, so it is also read
        at the variant's own best layer.
        """
        rows, home = [], self.predictions[PRETRAINED].layer
        for name, one in self.predictions.items():
            row: dict[str, Any] = {"model": name}
            for label, layer in ((f"TD at layer {home}", home), ("TD at its best layer", one.layer)):
                td = (
                    one.decodability.sel(layer=layer, task=list(one.decodability.tasks))
                    .mean("task", "shots")
                    .interval(level)
                )
                row |= {
                    label: float(td["mean"]),
                    f"{label}, low": float(td["low"]),
                    f"{label}, high": float(td["high"]),
                }
            acc = one.accuracy.mean("task", "shots").interval(level)
            strongest, votes = one.decodability.strongest_control(int(max(one.accuracy.values["shots"].values)))
            row |= {
                "best layer": one.layer,
                "accuracy": float(acc["mean"]),
                "accuracy low": float(acc["low"]),
                "accuracy high": float(acc["high"]),
                "strongest control": strongest,
                "TD of it": float(votes.mean()),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"Finetuning\n{self.table().round(3).to_string(index=False)}"


@renamed_keywords(run="folder=")
@checks_kinds
def finetune_layers(
    source: str | os.PathLike[str] | HookedModel,
    tasks: Tasks,
    *,
    first: int = 10,
    last: int = 10,
    method: LoRA | None = None,
    shots: int = 4,
    n: int = 100,
    queries: int = 100,
    k: int = 10,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    pretrained: Prediction | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    loading: Mapping[str, Any] | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Finetuning:
    """A `Finetuning`: the first `first` layers against the last `last` ones, with the same data and budget.

    The prompts of every step are drawn from the train split of every task but Null; they never contain a query of the
    test split or its input.

    Args:
        source: what `tv.load` takes, but not a loaded model: each variant starts from fresh weights.
        tasks: a family.
        first, last: how many layers each variant tunes.
        method: rank, steps, learning rate and so on; `LoRA()` if None.
        shots: demonstrations per prompt, in training and afterwards.
        n: prompts per task for decodability.
        queries: test prompts per task.
        k: neighbours that vote.
        layers: the layers where decodability is read; all if None.
        seed: fixes every draw.
        pretrained: the prediction of the model before finetuning, measured with the same arguments; measured if None.
        checkpoints: a folder where the tuned models are saved every `method.every` steps (`VARIANT/checkpoint-N`);
            `across_models` takes such folders.
        loading: further arguments for loading, such as `dtype`.
        folder: a folder that keeps adapters and optimizer, so that a killed training continues without a difference.
        progress: Show a progress bar (only on a terminal or in a notebook).
    """
    peft_library()
    method = method or LoRA()
    members = tasks_of(tasks)
    tuned = _variants(first, last, _model(source, loading)[0].config.num_hidden_layers)
    predictions, losses = {}, {}
    for name, chosen in tuned.items():
        if name == PRETRAINED and pretrained is not None:
            predictions[name] = pretrained
            continue
        model, tokenizer = _model(source, loading)
        if chosen:
            model, losses[name] = trained(
                model,
                tokenizer,
                members,
                chosen,
                method,
                shots=shots,
                seed=seed,
                saved=None if checkpoints is None else Path(checkpoints) / name.replace(" ", "-"),
                folder=inside(folder, name, "training"),
                progress=progress,
            )
        predictions[name] = _prediction(
            load(model, tokenizer=tokenizer, name=f"{Path(str(source)).name} ({name})"),
            members,
            shots=shots,
            queries=queries,
            folder=inside(folder, name),
            reading=dict(n=n, k=k, layers=layers, seed=seed, progress=progress),
        )
    return Finetuning(predictions, losses, tuned)


def _variants(first: int, last: int, total: int) -> dict[str, list[int]]:
    """The layers that each variant tunes."""
    if not 1 <= first <= total or not 1 <= last <= total:
        raise InvalidArgument(
            "There are not so many layers to tune.", got=f"first={first}, last={last}", allowed=f"1 to {total}"
        )
    return {
        PRETRAINED: [],
        f"first {first} layers": list(range(first)),
        f"last {last} layers": list(range(total - last, total)),
    }


def _prediction(
    hooked: HookedModel,
    members: Sequence[Task],
    *,
    shots: int,
    queries: int,
    folder: FolderLike,
    reading: dict[str, Any],
) -> Prediction:
    """Decodability and accuracy of one variant."""
    # A line needs some points; few tasks at one shot count have no line, and this experiment needs none.
    if len(members) >= 4:
        return encoding_against_accuracy(hooked, members, shots=(shots,), queries=queries, folder=folder, **reading)
    answered = accuracies(
        hooked,
        members,
        shots=(shots,),
        queries=queries,
        seed=reading["seed"],
        folder=inside(folder, "accuracy"),
        progress=reading["progress"],
    )
    encoded = decodability(hooked, members, shots=(shots,), folder=inside(folder, "decodability"), **reading)
    return Prediction(encoded, answered, encoded.best_layer())


def _model(
    source: str | os.PathLike[str] | HookedModel, loading: Mapping[str, Any] | None
) -> tuple[torch.nn.Module, Any]:
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidArgument(
            "Finetuning starts from weights, not from a model that is loaded.",
            got=type(source).__name__,
            allowed="a name or a folder",
        )
    return load_from(locate(str(source)), **{"dtype": torch.float32, "device": "cpu", **(loading or {})})
