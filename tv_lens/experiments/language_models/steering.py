"""Figure 20: prompts whose last token gets a task's mean representation, the Null task's mean, or a random vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens import tasks as task_library
from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.performance import tasks_of
from tv_lens.experiments.records import interval_of, signed_text
from tv_lens.intervention import Replace
from tv_lens.kinds import checks_kinds
from tv_lens.metrics import exact_match, info_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.representations import Tasks
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure

CONDITIONS = ("none", "own", "null", "other", "random")
SIGN = "higher: more whole answers are right; compare with the condition 'none', the same prompts untouched"


@dataclass(frozen=True, eq=False, repr=False)
class Steering:
    """What replacing the prompt's own representation with a task's mean does to accuracy.

    Args:
        sweep: exact match, `example condition layer task`; "own" is the mean of the same task, "null" of the Null task,
            "other" of the next task of the family, "random" a random direction as long as "own"; "none" is untouched.
            Each example is the mean over replicates, which differ in the prompts behind the means.
        replicates: how many times the means were drawn.
    """

    sweep: Sweep
    replicates: int

    def effects(self) -> Sweep:
        """Accuracy with each replacement minus accuracy of the untouched prompts: `example condition layer task`."""
        values = self.sweep.values
        gains = values.sel(condition=list(CONDITIONS[1:])) - values.sel(condition="none", drop=True)
        return Sweep(
            gains.transpose(*values.dims),
            "change in accuracy",
            "share of prompts",
            zero=0.0,
            sign="above 0: more prompts are answered than untouched",
            name="effect of steering",
            provenance=self.sweep.provenance,
        )

    def best_layer(self) -> int:
        """The layer where a task's own mean helps most, over tasks."""
        return int(self.effects().sel(condition="own").best("layer")["layer"])

    def __repr__(self) -> str:
        layer = self.best_layer()
        effects = self.effects().sel(layer=layer).mean("task")
        parts = [f"{name} {signed_text(interval_of(effects.sel(condition=name)))}" for name in CONDITIONS[1:]]
        untouched = float(self.sweep.sel(condition="none", layer=layer).mean().mean())
        return f"Steering at layer {layer}, {self.replicates} replicates: untouched {untouched:.3f}; " + ", ".join(
            parts
        )


@plot.register(Steering)
@checks_kinds
def plot_steering(result: Steering, *, title: str | None = None, height: int = 420) -> Figure:
    """A `Figure` of the change in accuracy over layers, averaged over tasks, one curve per condition."""
    effects = result.effects().mean("task")
    if effects.values.sizes["layer"] == 1:
        return plot(
            effects.sel(layer=effects.values["layer"].values.item()),
            kind="bars",
            title=title or "Effect of steering",
            height=height,
        )
    return plot(effects, kind="lines", title=title or "Effect of steering", height=height)


@renamed_keywords(run="folder=")
@verb
def steer(
    model: HookedModel,
    tasks: Tasks,
    *,
    layers: Sequence[int] | None = None,
    shots: int = 4,
    queries: int = 50,
    contexts: int = 100,
    replicates: int = 5,
    null: Task | None = None,
    seed: int = 0,
    template: Template | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Steering:
    """A `Steering`: exact match of few-shot prompts whose last token is replaced, by layer, with controls.

    The replacement stays at the prompt's last token while the answer is written; an answer counts if greedy decoding
    would write all of it.

    Args:
        model: the model that answers.
        tasks: a family of two tasks or more.
        layers: the layers after which the representation is replaced; all if None.
        shots: demonstrations, in the prompts that are steered and in those behind the means.
        queries: test prompts per task.
        contexts: prompts behind each mean, drawn from the train split.
        replicates: how many times all means are drawn.
        null: a Null task of your own.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        folder: a folder that keeps each finished replicate.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Han et al. 2025 (arXiv 2412.12276), figure 20 and appendix C: the mean of the correct task and of the Null task
        at the best layer, 5 replicates. Another task's mean and the random vector are our controls.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> options = dict(layers=(1,), shots=1, queries=2, contexts=4, replicates=1)
        >>> steer(task_switch(n=2).model, switch_tasks(), **options, progress=False)
        Steering at layer 1, 1 replicates: untouched 1.000; own +0.00 ..., null -1.00 ..., other -1.00 ...
    """
    members = tasks_of(tasks)
    if len(members) < 2 or replicates < 1:
        raise InvalidArgument(
            "Steering needs two tasks and a replicate.", got=f"{len(members)} tasks, replicates={replicates}"
        )
    layers = list(range(model.n_layers)) if layers is None else [int(layer) for layer in layers]
    nothing = task_library.null(members, seed=seed) if null is None else null
    method = ResidualMean(shots=shots, contexts=contexts, layers=layers, template=template)
    config = {
        "tasks": {one.name: one.fingerprint for one in (*members, nothing)},
        "layers": layers,
        "shots": shots,
        "queries": queries,
        "contexts": contexts,
        "seed": seed,
        "replicates": replicates,
        "template": [(template or one.template).to_dict() for one in members],
    }

    def replicate(i: int, bar: Bar) -> Piece:
        means = [method.at_layers(model, one, seed=seed + i, progress=False) for one in (*members, nothing)]
        grids = []
        for place, one in enumerate(members):
            prompts = one.prompts(shots, queries, seed=seed, split="test", template=template)
            grids.append(_replaced(model, prompts, means, place, layers, seed + i))
            bar.advance()
        return {"exact": torch.stack(grids, dim=-1)}

    work = Work.on(model, "steer", config, folder, progress)
    steps = [len(members)] * replicates
    finished = work.run(replicate, range(replicates), label="steering", unit="tasks", steps=steps)
    mean = np.mean([one["exact"] for one in finished], axis=0)
    values = xr.DataArray(
        mean,
        dims=("example", "condition", "layer", "task"),
        coords={"condition": list(CONDITIONS), "layer": sorted(set(layers)), "task": [one.name for one in members]},
    )
    provenance = {**config, "verb": "steer", **origin(model), **finished.provenance}
    sweep = Sweep(
        values, "accuracy", info_of(exact_match).units, SIGN, name="exact match when steered", provenance=provenance
    )
    return Steering(sweep, replicates)


def _replaced(
    model: HookedModel,
    prompts: Prompts,
    means: Sequence[dict[int, TaskVector]],
    place: int,
    layers: Sequence[int],
    seed: int,
) -> Float[Tensor, "prompt condition layer"]:
    """Exact match of each prompt under each replacement at each layer."""
    layers = sorted(set(layers))
    vectors: list[list[TaskVector]] = []
    for layer in layers:
        own = means[place][layer]
        other = means[(place + 1) % (len(means) - 1)][layer]
        vectors.append([own, means[-1][layer], other, own.random_like(seed)])
    flat = [vector.replace() for row in vectors for vector in row]
    exact = steered_exact_match(model, prompts, flat)  # prompt x (plain, then layer by layer)
    edited = exact[:, 1:].reshape(len(prompts), len(layers), len(CONDITIONS) - 1).transpose(1, 2)
    plain = exact[:, :1, None].expand(-1, 1, len(layers))
    return torch.cat([plain, edited], dim=1)


@verb
def steered_exact_match(
    model: HookedModel, prompts: Prompts, edits: Sequence[Replace], progress: bool = False
) -> Float[Tensor, "prompt edit_and_plain"]:
    """1 if greedy decoding begins with the whole answer: first of the untouched prompt, then with each edit.

    Each edit is made at the prompt's last token. These are the numbers of `tv.score`, edit by edit, but only the tokens
    that an edit can change are computed: every beginning of an answer is a prompt of its own, and each edit one row.
    """
    tokens = prompts.tokenize(model)
    rows, expected, base, ends = [], [], [], []
    for number, (row, answer) in enumerate(zip(tokens.tokens.rows(), tokens.answer_ids)):
        for j, token in enumerate(answer):
            where = (len(row) - 1,)
            rows.append(Row(len(base)))
            rows += [Row(len(base), (PlacedEdit(Replace(edit.site.at(None), edit.value), where),)) for edit in edits]
            expected += [token] * (len(edits) + 1)
            base.append([*row, *answer[:j]])
            ends.append(number)
    hits = run_rows(
        model,
        TokenBatch.from_lists(base),
        rows,
        _TopIs(torch.tensor(expected, dtype=torch.long, device="cpu")),
        who="steering",
        progress=progress,
    ).values.view(len(base), len(edits) + 1)
    exact = torch.ones(len(prompts), len(edits) + 1, dtype=torch.float32, device="cpu")
    for number, right in zip(ends, hits):
        exact[number] *= right
    return exact


@dataclass(frozen=True, eq=False)
class _TopIs:
    """1 if the top prediction of a row is its token, else 0."""

    tokens: Int[Tensor, "row"]

    def __call__(self, logits: Float[Tensor, "n columns"], rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        return (logits.argmax(-1).cpu() == self.tokens[rows]).float()
