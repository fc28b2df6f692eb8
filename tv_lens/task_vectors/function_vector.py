"""The sum of what a few causal heads write after demonstrations of a task: Todd et al.'s function vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import einops
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.intervention import Replace
from tv_lens.metrics import Readout, info_of, prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row
from tv_lens.rows.sharding import run_sharded
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.mean_activations import mean_at
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.ranking import ranked_heads, split_half
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector, tokenizer_fingerprint
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.templates import Template

COUNTS = (1, 2, 3, 5, 10, 20, 40)  # numbers of heads that heads=None chooses from


@dataclass(frozen=True)
class FunctionVector(Method):
    """The summed mean outputs of the heads that cause the right answer, to be added at a prompt's last token.

    Every head's mean output at the last token is taken over clean prompts of the task. Put in the place of the
    head's output on prompts whose demonstrations have shuffled labels, it changes the probability of the right
    answer: the head's causal indirect effect. The vector is the sum, over the heads with the largest mean effect, of
    their mean outputs, each taken through its part of the attention's output projection; that projection's bias
    belongs to no head and is left out. All prompts ask train pairs, so no dev or test query has any part in it.

    Args:
        layer: after which layer it is added to the residual stream; None chooses it by the accuracy of dev queries.
        heads: how many heads; None chooses on dev queries, of 1, 2, 3, 5, 10, 20, 40 (ties: fewer); or the heads
            themselves as (layer, head), which measures no effects.
        shots: demonstrations in a prompt.
        contexts: clean prompts that the mean outputs are over.
        prompts: prompts with shuffled labels that the effects are measured on.
        template: instead of the task's own.
        dev: how many dev queries choose; all of the split if it has fewer.

    Source:
        Todd et al. 2024 (arXiv 2310.15213), section 2; the numbers are theirs. They also average effects over tasks,
        which is `tv.universal_heads`, and drop prompts that the model gets wrong with its demonstrations.
    """

    layer: int | None = None
    heads: int | Sequence[Sequence[int]] | None = 10
    shots: int = 10
    contexts: int = 100
    prompts: int = 25
    template: Template | None = None
    dev: int = 40

    def __post_init__(self) -> None:
        # Fewer than two demonstrations have no labels to shuffle.
        for name, least in (("shots", 2), ("contexts", 1), ("prompts", 1), ("dev", 1)):
            if getattr(self, name) < least:
                raise InvalidArgument(f"FunctionVector needs {name} of at least {least}.", got=getattr(self, name))
        if isinstance(self.heads, int) and self.heads < 1:
            raise InvalidArgument("FunctionVector needs at least one head.", got=self.heads)
        if isinstance(self.heads, int) or self.heads is None:
            return
        named = tuple(tuple(int(part) for part in head) for head in self.heads)
        if not named or len(set(named)) < len(named) or any(len(head) != 2 for head in named):
            raise InvalidArgument(
                "Heads are named as different pairs (layer, head).",
                got=self.heads,
                allowed="heads=[(20, 5), (18, 2)], or how many",
            )
        object.__setattr__(self, "heads", named)

    # ---- the vector ---------------------------------------------------------------------------------------------

    def extract(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> TaskVector:
        outputs, ranked, about = self._measured(model, task, seed, progress, folder)
        if self.layer is not None and self.heads is not None:
            return self._vectors(model, task, outputs, self._taken(ranked), about)[self.layer]
        template = self.template or task.template
        found = []
        for count in [len(self._taken(ranked))] if self.heads is not None else _counts(len(ranked)):
            vectors = self._vectors(model, task, outputs, ranked[:count], about)
            sweep = layer_sweep(
                model,
                task,
                vectors,
                template=template,
                n=self.dev,
                seed=seed,
                scale=1.0,
                progress=progress,
                folder=inside(folder, f"layers of {count} heads"),
            )
            chosen, layers = sweep.provenance["chosen"], sorted(vectors)
            score = int(sweep.sel(layer=chosen).values.sum()), sweep.provenance["mean_log_prob"][layers.index(chosen)]
            found.append((score, replace(vectors[chosen], selection=sweep)))
        return max(found, key=lambda pair: pair[0])[1]  # of equals the first: the fewest heads

    def at_layers(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> dict[int, TaskVector]:
        """The vector at every layer (or at `layer`), without choosing: one direction, added at different places.

        Raises:
            InvalidArgument: `heads` is None, which only dev queries can decide.
        """
        if self.heads is None:
            raise InvalidArgument(
                "How many heads the vector sums is chosen on dev queries.",
                got="heads=None",
                do="name the number, or use extract().",
            )
        outputs, ranked, about = self._measured(model, task, seed, progress, folder)
        return self._vectors(model, task, outputs, self._taken(ranked), about)

    def fixed(self, layer: int, template: Template) -> FunctionVector:
        return replace(self, layer=layer, template=template)

    # ---- its controls -------------------------------------------------------------------------------------------

    def alike(self, description: Mapping[str, Any]) -> FunctionVector:
        """The same heads, summed without another ranking: a control shall differ in its task alone."""
        heads = description.get("summed_heads")
        return self if heads is None else replace(self, heads=heads)

    def own_controls(
        self,
        model: HookedModel,
        task: Task,
        vector: TaskVector,
        count: int,
        *,
        seed: int = 0,
        progress: bool = True,
        folder: FolderLike = None,
    ) -> dict[str, list[TaskVector]]:
        """As many heads drawn at random from the others, their sum on the same contexts brought to the vector's norm."""
        summed = {tuple(head) for head in vector.method.get("summed_heads", ())}
        rest = [
            (layer, head)
            for layer in range(model.n_layers)
            for head in range(model.shape.n_heads)
            if (layer, head) not in summed
        ]
        if not summed or len(rest) < len(summed):
            return {}
        means, prompts = self._means(model, task, seed, progress, inside(folder, "random heads"))
        outputs, drawn = head_outputs(model, means), []
        about: dict[str, Any] = {**prompts.recipe, "contexts": self.contexts}
        for i in range(count):
            heads = rng_of(seed, "random heads", i).sample(rest, len(summed))
            one = replace(self, layer=vector.site.layer, heads=heads)
            made = one._vectors(model, task, outputs, heads, about)[vector.site.layer]
            drawn.append(replace(made, direction=made.direction * (vector.norm / made.norm)))
        return {"random heads": drawn}

    # ---- the effects --------------------------------------------------------------------------------------------

    def effects(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> Sweep:
        """The causal indirect effect of every head on every shuffled prompt, exact: a Sweep `example x layer x head`.

        Its provenance has "split_half": Spearman's correlation between the heads' effects on two random halves of
        the prompts, averaged over 100 halvings; None for a single query.

        Sign: above 0, the head's mean output makes the right answer more probable than the shuffled prompt does.
        """
        self._check(model)
        means, _ = self._means(model, task, seed, progress, folder)
        return self._effects(model, task, means, seed, progress, folder)

    def _effects(
        self,
        model: HookedModel,
        task: Task,
        means: Float[Tensor, "layer head d_head"],
        seed: int,
        progress: bool,
        folder: FolderLike,
    ) -> Sweep:
        pairs = self._shuffled(task, seed)
        tokens = pairs.tokenize(model)
        base = model.tokens(tokens.corrupted.tokens)
        n, (layers, heads) = len(pairs), means.shape[:2]
        last = [int(length) - 1 for length in base.lengths]
        edits = [
            Replace(Site("z", layer, head), means[layer, head]) for layer in range(layers) for head in range(heads)
        ]
        rows = [Row(i) for i in range(n)]
        rows += [Row(i, (PlacedEdit(edit, (last[i],)),)) for edit in edits for i in range(n)]
        owners = torch.arange(n).repeat(1 + len(edits))
        config = {"prompts": pairs.recipe, "answers": tokens.answers, "means": means}
        found = run_sharded(
            model,
            base,
            rows,
            Readout(prob, tokens.answers, owners),
            folder=inside(folder, "effects"),
            verb="effects",
            config=config,
            who=f"{task.name}: effects of heads",
            progress=progress,
        )
        plain, edited = found.values[:n].double(), found.values[n:].double()
        values = einops.rearrange(edited, "(layer head n) -> n layer head", layer=layers, head=heads)
        groups = np.unique(pairs.clean.inputs, return_inverse=True)[1]  # a query that comes again is no new evidence
        sweep = Sweep(
            xr.DataArray(
                (values - plain[:, None, None]).numpy(),
                dims=("example", "layer", "head"),
                coords={"layer": range(layers), "head": range(heads), "group": ("example", groups)},
            ),
            metric="indirect_effect",
            units=info_of(prob).units,
            zero=0.0,
            sign="above 0: the head's mean output makes the right answer more probable; 0: no effect",
            name=f"{task.name}: causal indirect effect of every head",
            provenance={
                "verb": "effects",
                "model": model.name,
                "fingerprint": model.fingerprint,
                "task": task.name,
                "method": self.to_dict(),
                "seed": seed,
                "prompts": pairs.recipe,
                "shuffled_prob": float(plain.mean()),
                **found.provenance,
            },
        )
        return replace(sweep, provenance={**sweep.provenance, "split_half": split_half(sweep, seed=seed)})

    # ---- parts --------------------------------------------------------------------------------------------------

    def _contexts(self, task: Task, seed: int) -> Prompts:
        return task.prompts(self.shots, self.contexts, seed=seed, split="train", template=self.template)

    def _shuffled(self, task: Task, seed: int) -> PromptPairs:
        """The shuffled prompts, drawn apart from the contexts, whose own demonstrations they would else repeat."""
        apart = rng_of(seed, "effects").randrange(2**31)
        return task.pairs(
            self.shots, self.prompts, corrupt="shuffle_labels", seed=apart, split="train", template=self.template
        )

    def _means(
        self, model: HookedModel, task: Task, seed: int, progress: bool, folder: FolderLike
    ) -> tuple[Float[Tensor, "layer head d_head"], Prompts]:
        """Every head's mean output before its projection, at the last token of the contexts."""
        prompts = self._contexts(task, seed)
        sites = [Site("z", layer, pos=-1) for layer in range(model.n_layers)]
        means = mean_at(
            model,
            prompts.tokenize(model).tokens,
            sites,
            who=f"{task.name}: mean outputs of heads",
            progress=progress,
            folder=inside(folder, "contexts"),
            config={"prompts": prompts.recipe},
        )
        return means, prompts

    def _measured(
        self, model: HookedModel, task: Task, seed: int, progress: bool, folder: FolderLike
    ) -> tuple[Float[Tensor, "layer head d_model"], list[tuple[int, int]], dict[str, Any]]:
        """What each head writes on average, the heads from the best down, and the recipe of the prompts."""
        self._check(model)
        means, prompts = self._means(model, task, seed, progress, folder)
        about: dict[str, Any] = {**prompts.recipe, "contexts": self.contexts}
        if isinstance(self.heads, tuple):
            return head_outputs(model, means), list(self.heads), about
        effects = self._effects(model, task, means, seed, progress, folder)
        about |= {"effects": effects.provenance["prompts"], "split_half": effects.provenance["split_half"]}
        return head_outputs(model, means), ranked_heads(effects), about

    def _taken(self, ranked: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return ranked[: self.heads] if isinstance(self.heads, int) else ranked

    def _check(self, model: HookedModel) -> None:
        """Raises where the model has no such layer or heads."""
        model.registry.check(Site("z", 0), write=True)
        if self.layer is not None:
            model.registry.check(Site("resid_post", self.layer, pos=-1), write=True)
        if isinstance(self.heads, tuple):
            for layer, head in self.heads:
                model.registry.check(Site("z", layer, head), write=False)
        elif self.heads is not None and self.heads > model.n_layers * model.shape.n_heads:
            raise EmptySelection(
                "The model has fewer heads than the vector would sum.",
                got=self.heads,
                allowed=f"at most {model.n_layers * model.shape.n_heads}",
            )

    def _vectors(
        self,
        model: HookedModel,
        task: Task,
        outputs: Float[Tensor, "layer head d_model"],
        heads: list[tuple[int, int]],
        about: dict[str, Any],
    ) -> dict[int, TaskVector]:
        total = torch.stack([outputs[layer, head] for layer, head in heads]).double().sum(0).float()
        template = self.template or task.template
        kept = self if isinstance(self.heads, tuple) else replace(self, heads=len(heads))
        return {
            layer: TaskVector(
                total,
                Site("resid_post", layer, pos=-1),
                task=task.name,
                prompts=about,
                model=model.name,
                method={**kept.fixed(layer, template).to_dict(), "injected_by": "adding", "summed_heads": heads},
                fingerprint=model.fingerprint,
                tokenizer=tokenizer_fingerprint(model.tokenizer),
            )
            for layer in (range(model.n_layers) if self.layer is None else [self.layer])
        }


def head_outputs(model: HookedModel, means: Float[Tensor, "layer head d_head"]) -> Float[Tensor, "layer head d_model"]:
    """What heads add to their attention's output, from their outputs before it is projected; without the bias.

    Where the model has `result` sites, this is what they would hold. A norm that a model applies after attention
    (Gemma-2, OLMo-2) is not linear, so no head has a share of it, and it is left out.
    """
    written = []
    for layer, mean in enumerate(means):
        weight = model.tl.blocks[layer].attn.W_O.detach()
        if tuple(weight.shape) != (*mean.shape, model.shape.d_model):
            raise SiteError(
                "This model's output projection cannot be split by head.",
                got=list(weight.shape),
                allowed=[*mean.shape, model.shape.d_model],
            )
        written.append(einops.einsum(mean, weight.float().cpu(), "head d_head, head d_head d_model -> head d_model"))
    return torch.stack(written)


def _counts(available: int) -> list[int]:
    return [count for count in COUNTS if count <= available]
