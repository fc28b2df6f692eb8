"""The sum of what a few causal heads write after demonstrations of a task: the function vector of Todd et al."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.site import HeadLike, Site, parse_head
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.head_effects import head_effects, head_outputs
from tv_lens.task_vectors.mean_activations import mean_at
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.ranking import ranked_heads
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector, tokenizer_fingerprint
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.templates import Template
from tv_lens.torch_settings import settings_in_force

COUNTS = (1, 2, 3, 5, 10, 20, 40)  # the numbers of heads that heads=None chooses from


@checks_kinds
@final
@dataclass(frozen=True)
class FunctionVector(Method):
    """The summed mean outputs of the heads that cause the right answer, to be added at a prompt's last token.

    Every head's mean output at the last token is taken over clean prompts of the task. Put in the place of the
    head's output on prompts whose demonstrations have shuffled labels, it changes the probability of the right
    answer: the head's causal indirect effect. The vector is the sum, over the heads with the largest mean effect, of
    their mean outputs, each multiplied by its part of the attention's output projection. The bias of the projection
    belongs to no head and is left out. All prompts ask train pairs, so no dev or test query contributes to the vector.

    Args:
        layer: the layer after which it is added to the residual stream; None chooses it by the accuracy of dev queries.
        heads: the number of heads; None chooses from 1, 2, 3, 5, 10, 20, 40 on dev queries (ties: fewer); or the heads
            themselves as (layer, head) or "a3.h1", and then no effects are measured.
        shots: demonstrations per prompt.
        contexts: number of clean prompts that the mean outputs are over.
        prompts: number of prompts with shuffled labels that the effects are measured on.
        template: used instead of the task's own.
        dev: number of dev queries for these choices; all of the split if it has fewer.

    Source:
        Todd et al. 2024 (arXiv 2310.15213), section 2; the numbers are theirs. They also average effects over tasks,
        which is `tv.methods.universal_heads`, and drop prompts that the model gets wrong with its demonstrations.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> task, _ = switch_tasks()
        >>> method = FunctionVector(layer=1, heads=2, shots=2, contexts=4, prompts=4)
        >>> vector = method.extract(task_switch(n=2).model, task, progress=False)
        >>> vector.site, vector.direction.shape
        (resid_post[1]@-1, torch.Size([96]))
    """

    layer: int | None = None
    heads: int | Sequence[HeadLike] | None = 10
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
        named = tuple(parse_head(head) for head in self.heads)
        if not named or len(set(named)) < len(named):
            raise InvalidArgument(
                "Heads are named as different pairs (layer, head).",
                got=self.heads,
                allowed='heads=[(20, 5), "a18.h2"], or how many',
            )
        object.__setattr__(self, "heads", named)

    # ---- the vector ---------------------------------------------------------------------------------------------

    @renamed_keywords(run="folder=")
    def extract(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> TaskVector:
        outputs, ranked, about = self._measured(model, task, seed, progress, folder)
        if self.layer is not None and self.heads is not None:
            return self._vectors(model, task, outputs, self._taken(ranked), about)[self.layer]
        template = self.template or task.template
        candidates = []
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
            candidates.append((score, replace(vectors[chosen], selection=sweep)))
        return max(candidates, key=lambda pair: pair[0])[1]  # of equal scores the first, with the fewest heads

    @renamed_keywords(run="folder=")
    def at_layers(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> dict[int, TaskVector]:
        """The vector at every layer (or at `layer`), without a choice of layer: one direction at several sites.

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
        """The same heads without another ranking, so that a control differs in its task alone."""
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
        """As many other heads at random: their sum on the same contexts, scaled to the vector's norm."""
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

    @renamed_keywords(run="folder=")
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
        return head_effects(
            model,
            self._shuffled(task, seed),
            means,
            seed=seed,
            method=self.to_dict(),
            progress=progress,
            folder=inside(folder, "effects"),
        )

    # ---- parts --------------------------------------------------------------------------------------------------

    def _contexts(self, task: Task, seed: int) -> Prompts:
        return task.prompts(self.shots, self.contexts, seed=seed, split="train", template=self.template)

    def _shuffled(self, task: Task, seed: int) -> PromptPairs:
        """The shuffled prompts, drawn with another seed, since they would repeat the demonstrations of the contexts."""
        own_seed = rng_of(seed, "effects").randrange(2**31)
        return task.pairs(
            self.shots, self.prompts, corrupt="shuffle_labels", seed=own_seed, split="train", template=self.template
        )

    def _means(
        self, model: HookedModel, task: Task, seed: int, progress: bool, folder: FolderLike
    ) -> tuple[Float[Tensor, "layer head d_head"], Prompts]:
        """The mean output of every head before its projection, at the last token of the contexts, and the contexts."""
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
        """The mean of what each head writes, the heads from the best down, and the recipe of the prompts."""
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
        """Raises an error where the model has no such layer or heads."""
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
        method = self if isinstance(self.heads, tuple) else replace(self, heads=len(heads))
        return {
            layer: TaskVector(
                total,
                Site("resid_post", layer, pos=-1),
                task=task.name,
                prompts={**about, **settings_in_force()},
                model=model.name,
                method={**method.fixed(layer, template).to_dict(), "injected_by": "adding", "summed_heads": heads},
                fingerprint=model.fingerprint,
                tokenizer=tokenizer_fingerprint(model.tokenizer),
            )
            for layer in (range(model.n_layers) if self.layer is None else [self.layer])
        }


def _counts(available: int) -> list[int]:
    return [count for count in COUNTS if count <= available]
