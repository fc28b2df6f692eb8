"""Table 1 and figure 24: what finetuning the first or the last layers does to encoding and accuracy."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.performance import accuracies, tasks_of
from tv_lens.experiments.language_models.prediction import Prediction, encoding_against_accuracy
from tv_lens.loading.weights import fingerprint, load_from, locate
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.run_folder import FolderLike, inside, shards
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of

PRETRAINED = "pretrained"


@dataclass(frozen=True)
class LoRA:
    """How a model is finetuned.

    Args:
        rank, alpha, dropout: of the adapters, on every linear map of the chosen layers.
        steps: steps of AdamW.
        batch: prompts per step.
        lr: learning rate, constant.
        every: steps between two states that are kept in the folder, and between two saved checkpoints.
        answers: "all" learns every answer of a prompt, "last" only the answer to its query.

    Source:
        Han et al. 2025 (arXiv 2412.12276), appendix H: rank 16, alpha 16, dropout 0.1, loss on the answers only.
        Learning rate, batch and target modules are not stated there.
    """

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.1
    steps: int = 300
    batch: int = 8
    lr: float = 2e-4
    every: int = 100
    answers: str = "all"

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "steps", "batch", "every"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"LoRA needs {name} of at least 1.", got=getattr(self, name))
        if self.answers not in ("all", "last"):
            raise InvalidArgument(
                "Either all answers are learnt or the last.", got=repr(self.answers), allowed="all, last"
            )


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
                    .average("task", "shots")
                    .interval(level)
                )
                row |= {
                    label: float(td["mean"]),
                    f"{label}, low": float(td["low"]),
                    f"{label}, high": float(td["high"]),
                }
            acc = one.accuracy.average("task", "shots").interval(level)
            row |= {
                "best layer": one.layer,
                "accuracy": float(acc["mean"]),
                "accuracy low": float(acc["low"]),
                "accuracy high": float(acc["high"]),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"Finetuning\n{self.table().round(3).to_string(index=False)}"


@renamed_keywords(run="folder=")
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
    _peft()
    method = method or LoRA()
    members = tasks_of(tasks)
    total = _model(source, loading)[0].config.num_hidden_layers
    if not 1 <= first <= total or not 1 <= last <= total:
        raise InvalidArgument(
            "There are not so many layers to tune.", got=f"first={first}, last={last}", allowed=f"1 to {total}"
        )
    tuned = {
        PRETRAINED: [],
        f"first {first} layers": list(range(first)),
        f"last {last} layers": list(range(total - last, total)),
    }
    predictions, losses = {}, {}
    for name, chosen in tuned.items():
        if name == PRETRAINED and pretrained is not None:
            predictions[name] = pretrained
            continue
        model, tokenizer = _model(source, loading)
        if chosen:
            saved = None if checkpoints is None else Path(checkpoints) / name.replace(" ", "-")
            model, losses[name] = _trained(
                model,
                tokenizer,
                members,
                chosen,
                method,
                shots=shots,
                seed=seed,
                saved=saved,
                folder=inside(folder, name, "training"),
                progress=progress,
            )
        hooked = load(model, tokenizer=tokenizer, name=f"{Path(str(source)).name} ({name})")
        predictions[name] = _measured(
            hooked,
            members,
            shots=shots,
            n=n,
            queries=queries,
            k=k,
            layers=layers,
            seed=seed,
            folder=inside(folder, name),
            progress=progress,
        )
    return Finetuning(predictions, losses, tuned)


def _measured(hooked: HookedModel, members: Sequence[Task], *, shots: int, **options: Any) -> Prediction:
    # A line needs some points; few tasks at one shot count have no line, and this experiment needs none.
    folder, queries, layers = options.pop("folder"), options.pop("queries"), options.pop("layers")
    if len(members) >= 4:
        return encoding_against_accuracy(
            hooked, members, shots=(shots,), queries=queries, layers=layers, folder=folder, **options
        )
    answered = accuracies(
        hooked,
        members,
        shots=(shots,),
        queries=queries,
        seed=options["seed"],
        folder=inside(folder, "accuracy"),
        progress=options["progress"],
    )
    encoded = decodability(
        hooked, members, shots=(shots,), layers=layers, folder=inside(folder, "decodability"), **options
    )
    return Prediction(encoded, answered, encoded.best_layer())


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InvalidArgument("Finetuning needs the library peft.", do="pip install 'tv_lens[finetune]'") from error
    return peft


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


# --------------------------------------------------------------------------------------------------------- training


def _trained(
    model: torch.nn.Module,
    tokenizer: Any,
    tasks: Sequence[Task],
    layers: Sequence[int],
    method: LoRA,
    *,
    shots: int,
    seed: int,
    saved: Path | None,
    folder: FolderLike,
    progress: bool,
) -> tuple[torch.nn.Module, list[float]]:
    """The model with its adapters merged in, and the mean loss of every `method.every` steps."""
    peft = _peft()
    config = {
        "weights": fingerprint(model),
        "tasks": {one.name: one.fingerprint for one in tasks},
        "layers": list(layers),
        "method": method,
        "shots": shots,
        "seed": seed,
        "template": [one.template.to_dict() for one in tasks],
    }
    torch.manual_seed(seed)  # fixes the initial adapters
    settings = peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        task_type="CAUSAL_LM",
        target_modules=_linear_maps(model, layers),
    )
    tuned = peft.get_peft_model(model, settings)
    weights = [weight for weight in tuned.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=method.lr, weight_decay=0.0)
    stretches = -(-method.steps // method.every)
    with shards(folder, verb="finetune", config=config, total=stretches) as work:
        if work.done:
            _restore(work.get(max(work.done)).arrays, weights, optimizer)
        with progress_bar("finetuning", method.steps, "steps", progress, done=len(work.done) * method.every) as bar:
            for i in work.pending():
                losses = []
                tuned.train()
                for step in range(i * method.every, min((i + 1) * method.every, method.steps)):
                    losses.append(
                        _step(tuned, optimizer, *_examples(tokenizer, tasks, method, shots, seed, step), seed + step)
                    )
                    bar.advance()
                work.put(i, _state(weights, optimizer), about={"loss": sum(losses) / len(losses)})
                if saved is not None:
                    _save(tuned, tokenizer, saved / f"checkpoint-{min((i + 1) * method.every, method.steps)}")
        losses = [one.about["loss"] for one in work.all()]
    return tuned.eval().merge_and_unload(), losses


def _linear_maps(model: torch.nn.Module, layers: Sequence[int]) -> list[str]:
    """The full names of the linear maps inside the chosen layers."""
    wanted = set(layers)
    names = []
    for name, module in model.named_modules():
        place = re.search(r"\.(\d+)\.", name)
        linear = isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and place is not None and int(place.group(1)) in wanted:
            names.append(name)
    return names


def _examples(
    tokenizer: Any, tasks: Sequence[Task], method: LoRA, shots: int, seed: int, step: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """A batch of prompts with their answers, and the labels of the tokens to be learnt (-100 elsewhere)."""
    rows, labels = [], []
    for j in range(method.batch):
        rng = rng_of("finetune", seed, step, j)
        one = tasks[rng.randrange(len(tasks))]
        tokens = one.prompts(shots, 1, seed=rng.getrandbits(31), split="train").tokenize(tokenizer)
        (prompt,), answer = tokens.tokens.rows(), tokens.answer_ids[0]
        learnt = [-100] * len(prompt) + answer
        if method.answers == "all":
            for span in tokens.token_spans[0]:
                if span.kind == "y":
                    learnt[span.start : span.end] = prompt[span.start : span.end]
        rows.append(prompt + answer)
        labels.append(learnt)
    width = max(map(len, rows))
    ids = torch.tensor(
        [row + [0] * (width - len(row)) for row in rows]
    )  # causal attention: padding at the end changes nothing
    return ids, torch.tensor([row + [-100] * (width - len(row)) for row in labels])


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    ids: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
    seed: int,
) -> float:
    """One step of the optimizer. Dropout depends on the step's seed alone, so that a resumed training is the same."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        learnt = (labels[:, 1:] != -100).nonzero()
        places = learnt[:, 1].unique()  # the unembedding costs a fifth of a small model: compute it only before answers
        row, place = learnt[:, 0], torch.searchsorted(places, learnt[:, 1])
        if "logits_to_keep" in _arguments(model):
            logits = model(ids.to(device), use_cache=False, logits_to_keep=places.to(device)).logits[row, place]
        else:
            logits = model(ids.to(device), use_cache=False).logits[row, learnt[:, 1]]
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][learnt[:, 0], learnt[:, 1]].to(device))
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _arguments(model: torch.nn.Module) -> Collection[str]:
    """The names of the arguments that a model's forward takes, with adapters or without."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(inner.forward).parameters


def _state(weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    arrays = {}
    for i, weight in enumerate(weights):
        moments = optimizer.state[weight]
        arrays |= {
            f"{i}.weight": weight.detach(),
            f"{i}.exp_avg": moments["exp_avg"],
            f"{i}.exp_avg_sq": moments["exp_avg_sq"],
            f"{i}.step": moments["step"],
        }
    return arrays


def _restore(arrays: Mapping[str, Any], weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    for i, weight in enumerate(weights):
        with torch.no_grad():
            weight.copy_(torch.from_numpy(arrays[f"{i}.weight"]))
        optimizer.state[weight] = {
            name: torch.from_numpy(arrays[f"{i}.{name}"]).to(weight.device if name != "step" else "cpu")
            for name in ("exp_avg", "exp_avg_sq", "step")
        }


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves the model with its adapters merged in, as `save_pretrained` does; the model itself is left as it is."""
    import copy

    copy.deepcopy(model).merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
