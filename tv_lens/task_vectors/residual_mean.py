"""The mean of the residual stream after demonstrations of a task: the task vector of Hendel et al."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_keywords
from tv_lens.site import Site, component
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.mean_activations import mean_at
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector, check_component, tokenizer_fingerprint
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of, take
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template
from tv_lens.torch_settings import settings_in_force


@checks_kinds
@final
@dataclass(frozen=True)
class ResidualMean(Method):
    """The mean residual stream at the last token of prompts that show the task and ask a dummy query.

    A context is a set of demonstrations with a dummy query: another input, which only completes the prompt. Dummies
    are drawn from the train split like the demonstrations, so no dev or test input contributes to the vector; they
    differ from context to context. The vector is injected by replacement at the last token of a prompt without
    demonstrations.

    Args:
        layer: the layer that is read and replaced; None chooses it by the accuracy of injected dev queries (ties: the
            higher log-probability).
        shots: demonstrations per context.
        contexts: number of contexts that the mean is over; 1 gives the vector of one set of demonstrations.
        queries: dummy queries per context.
        component: the component that is read and replaced.
        template: used instead of the task's own.
        layers: the layers to choose from; None for all.
        dev: number of dev queries for the choice of the layer; all of the split if it has fewer.

    Source:
        Hendel, Geva and Globerson 2023 (arXiv 2310.15916). Theirs is `ResidualMean(shots=5, contexts=1, queries=2)`
        separately for every set of demonstrations, with dummies from the test inputs and the layer chosen on a dev
        set. The mean over contexts is their `multi_context` variant and Han et al. 2025 (arXiv 2412.12276), appendix C.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> task, _ = switch_tasks()
        >>> vector = ResidualMean(layer=1, shots=2, contexts=4).extract(task_switch(n=2).model, task, progress=False)
        >>> vector.site, vector.direction.shape
        (resid_post[1]@-1, torch.Size([96]))
    """

    layer: int | None = None
    shots: int = 10
    contexts: int = 100
    queries: int = 1
    component: str = "resid_post"
    template: Template | None = None
    layers: Sequence[int] | None = None
    dev: int = 40

    def __post_init__(self) -> None:
        entry = check_component(component(self.component))
        if not entry.layered:
            raise InvalidArgument(
                f"{self.component} has no layers to choose from.",
                got=self.component,
                allowed="resid_pre, resid_mid, resid_post, attn_out, mlp_out",
            )
        for name, least in (("shots", 0), ("contexts", 1), ("queries", 1), ("dev", 1)):
            if getattr(self, name) < least:
                raise InvalidArgument(f"ResidualMean needs {name} of at least {least}.", got=getattr(self, name))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(sorted({int(layer) for layer in self.layers})))
            if self.layer is not None or not self.layers:
                raise InvalidArgument(
                    "Either one layer is named, or several to choose from.",
                    got=f"layer={self.layer}, layers={self.layers}",
                )

    @renamed_keywords(run="folder=")
    def extract(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> TaskVector:
        vectors = self.at_layers(model, task, seed=seed, progress=progress, folder=inside(folder, "contexts"))
        if self.layer is not None:
            return vectors[self.layer]
        selection = layer_sweep(
            model,
            task,
            vectors,
            template=self.template or task.template,
            n=self.dev,
            seed=seed,
            progress=progress,
            folder=inside(folder, "layers"),
        )
        return replace(vectors[selection.provenance["chosen"]], selection=selection)

    @renamed_keywords(run="folder=")
    def at_layers(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> dict[int, TaskVector]:
        """The vector of every layer (or of `layers`, or `layer`), from one set of passes, without a choice of layer.

        Raises:
            SiteError: the model has no such layer.
        """
        sites = self._sites(model)
        prompts = self._contexts(task, seed)
        means = mean_at(
            model,
            prompts.tokenize(model).tokens,
            sites,
            who=f"{task.name}: reading contexts",
            progress=progress,
            folder=folder,
            config={"prompts": prompts.recipe},
        )
        recipe: dict[str, Any] = {**prompts.recipe, "contexts": self.contexts, "queries": self.queries}
        tokenizer = tokenizer_fingerprint(model.tokenizer)
        return {
            site.layer: TaskVector(
                mean,
                site,
                task=task.name,
                method=self.fixed(site.layer, prompts.template).to_dict(),
                prompts={**recipe, **settings_in_force()},
                model=model.name,
                fingerprint=model.fingerprint,
                tokenizer=tokenizer,
            )
            for site, mean in zip(sites, means)
        }

    def fixed(self, layer: int, template: Template) -> ResidualMean:
        return replace(self, layer=layer, layers=None, template=template)

    def _sites(self, model: HookedModel) -> list[Site]:
        layers: Iterable[int] = range(model.n_layers) if self.layers is None else self.layers
        if self.layer is not None:
            layers = [self.layer]
        return [model.registry.check(Site(self.component, layer, pos=-1), write=True) for layer in layers]

    def _contexts(self, task: Task, seed: int) -> Prompts:
        """The contexts with their dummy queries, all of them from the train split."""
        drawn = task.prompts(self.shots, self.contexts, seed=seed, split="train", template=self.template)
        if self.queries == 1:
            return drawn
        items: list[Prompt] = []
        for i, context in enumerate(drawn):
            used = {context.input, *(pair.input for pair in context.demonstrations)}
            unused = [pair for pair in task.split("train") if pair.input not in used]
            more = take(unused, self.queries - 1, rng_of(seed, "dummies", i))
            if len(more) < self.queries - 1:
                raise EmptySelection(
                    f"{task.name!r} has too few train pairs for so many dummy queries.",
                    got=f"queries={self.queries}",
                    allowed=f"at most {len(unused) + 1}",
                )
            items += [context, *(Prompt.build(drawn.template, context.demonstrations, pair) for pair in more)]
        return replace(drawn, items=tuple(items), recipe={**drawn.recipe, "n": len(items)})
