"""Low-rank adapters on some layers of a model, trained on the answers of tasks; a killed training can be resumed."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.loading.weights import fingerprint
from tv_lens.model.grad_mode import GradMode
from tv_lens.progress import Bar
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.storage.shard_file import Shard
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of


@checks_kinds
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

    Example:
        >>> LoRA(rank=4).rank
        4
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


def peft_library() -> Any:
    """The library peft, which not every installation has."""
    try:
        import peft
    except ImportError as error:
        raise InvalidArgument("Finetuning needs the library peft.", do="pip install 'tv_lens[finetune]'") from error
    return peft


def trained(
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
    peft = peft_library()
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
    stretches = [range(at, min(at + method.every, method.steps)) for at in range(0, method.steps, method.every)]

    def stretch(steps: range, bar: Bar, before: Sequence[Shard]) -> Piece:
        if before:
            _restore(before[-1].arrays, weights, optimizer)
        tuned.train()
        losses = []
        for step in steps:
            losses.append(_step(tuned, optimizer, *_examples(tokenizer, tasks, method, shots, seed, step), seed + step))
            bar.advance()
        if saved is not None:
            _save(tuned, tokenizer, saved / f"checkpoint-{steps.stop}")
        return _state(weights, optimizer), {"loss": sum(losses) / len(losses)}

    finished = Work("finetune", config, folder, progress).run_in_order(
        stretch, stretches, label="finetuning", unit="steps", steps=list(map(len, stretches))
    )
    _restore(finished[-1].arrays, weights, optimizer)
    return tuned.eval().merge_and_unload(), [one.about["loss"] for one in finished]


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
        [row + [0] * (width - len(row)) for row in rows], dtype=torch.long, device="cpu"
    )  # causal attention: padding at the end changes nothing
    return ids, torch.tensor([row + [-100] * (width - len(row)) for row in labels], dtype=torch.long, device="cpu")


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    ids: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
    seed: int,
) -> float:
    """One step of the optimizer. Dropout depends on the step's seed alone, so that a resumed training is the same."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(), GradMode(True):
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
        with GradMode(False):
            weight.copy_(torch.from_numpy(arrays[f"{i}.weight"]))
        optimizer.state[weight] = {
            name: torch.from_numpy(arrays[f"{i}.{name}"]).to(weight.device if name != "step" else "cpu")
            for name in ("exp_avg", "exp_avg_sq", "step")
        }


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves the model with its adapters merged in, as `save_pretrained` does; the model itself is left as it is."""
    copy.deepcopy(model).merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
