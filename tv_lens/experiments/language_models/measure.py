"""`paper`: the paper's experiments on language models in one call, at a size that fits the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tv_lens import tasks as task_library
from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.language_models.checkpoints import across_models
from tv_lens.experiments.language_models.encoding import task_encoding
from tv_lens.experiments.language_models.finetuning import LoRA, finetune_layers
from tv_lens.experiments.language_models.instruction import with_instruction
from tv_lens.experiments.language_models.prediction import encoding_against_accuracy
from tv_lens.experiments.language_models.result import PaperResult
from tv_lens.experiments.language_models.steering import steer
from tv_lens.experiments.records import model_card, versions
from tv_lens.experiments.stages import Clock, Say
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.pca_map import PCA
from tv_lens.tasks.definition import Task

FAMILIES = ("pos", "bitwise")


@checks_kinds
@dataclass(frozen=True)
class PaperSize:
    """How much of everything `paper` measures.

    Args:
        name: what the page calls this size.
        shots: demonstrations per prompt.
        n: prompts per class for decodability.
        k: neighbours that vote.
        queries: test prompts per task and shot count.
        layer_step: every `layer_step`-th layer is read.
        width: bits of an operand.
        steer_layers: at how many layers, the best one among them, prompts are steered.
        steer_queries: test prompts per task that are steered.
        contexts: prompts behind each mean.
        replicates: how often the means are drawn anew.
        maps: how the maps are drawn, such as `tv.methods.PCA()`; None for no maps.
        finetune: steps of LoRA for each variant; 0 leaves finetuning out.
        batch: prompts per step of LoRA.
        tuned: the share of the layers that is tuned, first the first ones and then the last ones.
    """

    name: str = "custom"
    shots: tuple[int, ...] = (1, 4, 10)
    n: int = 100
    k: int = 10
    queries: int = 100
    layer_step: int = 1
    width: int = 5
    steer_layers: int = 5
    steer_queries: int = 50
    contexts: int = 100
    replicates: int = 5
    maps: MapMethod | None = field(default_factory=PCA)
    finetune: int = 300
    batch: int = 8
    tuned: float = 1 / 3


SIZES = {
    "tiny": PaperSize("tiny", shots=(1, 4), n=10, k=5, queries=6, layer_step=5, width=2, steer_layers=1,
                      steer_queries=4, contexts=6, replicates=1, maps=None, finetune=0),
    "laptop": PaperSize("laptop", n=40, queries=30, layer_step=2, width=3, steer_layers=2,
                        steer_queries=8, contexts=30, replicates=2, batch=2),
    "paper": PaperSize("paper", queries=500, finetune=1250, replicates=5),
}  # fmt: skip


def size_called(name: str, finetune: int | None = None) -> PaperSize:
    """A size by name, with another number of finetuning steps if one is given."""
    if name not in SIZES:
        raise unknown("size", name, SIZES)
    return SIZES[name] if finetune is None else replace(SIZES[name], finetune=finetune)


@renamed_keywords(run="folder=")
@verb
def paper(
    model: HookedModel | str | os.PathLike[str],
    *,
    size: PaperSize | str = "laptop",
    families: Sequence[str] = FAMILIES,
    sentences: str | os.PathLike[str] | None = None,
    others: Sequence[str] = (),
    seed: int = 0,
    loading: Mapping[str, Any] | None = None,
    folder: FolderLike = None,
    say: Say | None = None,
    progress: bool = True,
) -> PaperResult:
    """A `PaperResult`: Figures 3 to 6 and 19 to 26 and Table 1 of the paper on a model, with controls.

    Args:
        model: what `tv.load` takes. A model that is already loaded is not finetuned, which starts from fresh weights.
        size: "tiny" (minutes), "laptop" (hours on two cores), "paper", or a `PaperSize`.
        families: "pos", "bitwise" or both.
        sentences: a CoNLL-U file, or "ptb"; the library's own sentences if None.
        others: further models or checkpoints that are measured in the same way.
        seed: fixes every draw.
        loading: further arguments of `tv.load`.
        folder: a folder that keeps finished work; the next call with it measures only the rest.
        say: called with one line as each stage begins.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Han et al. 2025 (arXiv 2412.12276).
    """
    size = size_called(size) if isinstance(size, str) else size
    _check_families(families)
    members = {name: _members(name, size, sentences, seed) for name in families}
    clock = Clock(say)
    with clock.stage("loading", f"loading {getattr(model, 'name', model)}"):
        hooked = load(model, **(loading or {}))
    experiments = _PaperRun(hooked, size, seed, folder, clock, progress)
    for name, tasks in members.items():
        experiments.measure(name, tasks)
    left_out = {}
    if not size.finetune:
        left_out["finetuning (Table 1, Fig. 24)"] = (
            "not part of this size: finetune=N, or --finetune N on the command line"
        )
    elif isinstance(model, HookedModel):
        left_out["finetuning (Table 1, Fig. 24)"] = "the model came loaded; give its name or folder"
    else:
        experiments.finetune(model, members, loading)
    if others:
        experiments.compare(others, members, loading)
    else:
        left_out["checkpoints and models (Figs. 5, 6, 21, 22)"] = (
            "none were named: others=[...], or --also on the command line"
        )
    settings = {
        **asdict(size),
        "maps": None if size.maps is None else size.maps.name,
        "size": size.name,
        "seed": seed,
        "families": list(families),
        "sentences": "the library's own" if sentences is None else Path(str(sentences)).name,
    }
    return PaperResult(
        model_card(hooked),
        settings,
        **experiments.results,
        left_out=left_out,
        seconds=clock.seconds,
        versions=versions(),
    )


def _check_families(families: Sequence[str]) -> None:
    for family in families:
        if family not in FAMILIES:
            raise unknown("family of the paper", family, FAMILIES)
    if not families:
        raise InvalidArgument("At least one family is needed.", got="none", allowed=", ".join(FAMILIES))


def _members(name: str, size: PaperSize, sentences: str | os.PathLike[str] | None, seed: int) -> tuple[Task, ...]:
    options = {"source": sentences} if name == "pos" else {"width": size.width}
    return task_library.family(name, seed=seed, **options)


@dataclass
class _PaperRun:
    """The experiments on one model, and their results so far."""

    model: HookedModel
    size: PaperSize
    seed: int
    folder: FolderLike
    clock: Clock
    progress: bool
    results: dict[str, Any] = field(
        default_factory=lambda: {
            name: {} for name in ("encoding", "prediction", "steering", "instruction", "finetuning")
        }
    )

    @property
    def reading(self) -> dict[str, Any]:
        """The options of everything that reads decodability; layer 0 is always read, as a control."""
        layers = sorted({0, *range(self.size.layer_step - 1, self.model.n_layers, self.size.layer_step)})
        return dict(n=self.size.n, k=self.size.k, layers=layers, seed=self.seed, progress=self.progress)

    def measure(self, name: str, tasks: Sequence[Task]) -> None:
        """Measures one family: encoding, accuracy, steering and instruction (Figs. 3, 4, 19, 20, 23, 25 and 26)."""
        size, folder, shots = self.size, inside(self.folder, name), self.size.shots
        with self.clock.stage("encoding", f"{name}: decodability at {', '.join(map(str, shots))} shots"):
            encoding = task_encoding(
                self.model, tasks, shots=shots, maps=size.maps, folder=inside(folder, "encoding"), **self.reading
            )
        with self.clock.stage("accuracy", f"{name}: answers of {size.queries} test prompts per task and shot count"):
            prediction = encoding_against_accuracy(
                self.model,
                tasks,
                shots=shots,
                queries=size.queries,
                found=encoding.decodability,
                folder=inside(folder, "prediction"),
                **self.reading,
            )
        usual = 4 if 4 in shots else shots[-1]
        with self.clock.stage("steering", f"{name}: steering near layer {encoding.layer}"):
            layers = _around(encoding.layer, size.steer_layers, self.model.n_layers)
            steering = steer(
                self.model,
                tasks,
                layers=layers,
                shots=usual,
                queries=size.steer_queries,
                contexts=size.contexts,
                replicates=size.replicates,
                seed=self.seed,
                folder=inside(folder, "steering"),
                progress=self.progress,
            )
        with self.clock.stage("instruction", f"{name}: the same prompts with an instruction, {usual} shots"):
            instructed = with_instruction(
                self.model,
                tasks,
                shots=(usual,),
                queries=size.queries,
                plain=prediction.at_shots(usual),
                folder=inside(folder, "instruction"),
                **self.reading,
            )
        for key, one in dict(
            encoding=encoding, prediction=prediction, steering=steering, instruction=instructed
        ).items():
            self.results[key][name] = one

    def finetune(
        self, source: str | os.PathLike[str], members: Mapping[str, Sequence[Task]], loading: Mapping[str, Any] | None
    ) -> None:
        """Finetunes the first and the last layers on each family (Table 1, Fig. 24)."""
        count = max(1, round(self.model.n_layers * self.size.tuned))
        shots = 4 if 4 in self.size.shots else self.size.shots[-1]
        for name, tasks in members.items():
            with self.clock.stage(
                "finetuning", f"{name}: {self.size.finetune} steps on the first and on the last {count} layers"
            ):
                self.results["finetuning"][name] = finetune_layers(
                    source,
                    tasks,
                    first=count,
                    last=count,
                    method=LoRA(steps=self.size.finetune, batch=self.size.batch),
                    shots=shots,
                    pretrained=self.results["prediction"][name].at_shots(shots),
                    queries=self.size.queries,
                    loading=loading,
                    folder=inside(self.folder, name, "finetuning"),
                    **self.reading,
                )

    def compare(
        self, others: Sequence[str], members: Mapping[str, Sequence[Task]], loading: Mapping[str, Any] | None
    ) -> None:
        """Measures further models or checkpoints in the same way (Figs. 5, 6, 21 and 22)."""
        with self.clock.stage("models", f"the same on {', '.join(others)}"):
            self.results["comparison"] = across_models(
                [self.model, *others],
                members,
                shots=self.size.shots,
                queries=self.size.queries,
                loading=loading,
                folder=inside(self.folder, "models"),
                **self.reading,
            )


def _around(layer: int, count: int, n_layers: int) -> list[int]:
    """`count` layers spread evenly over the model, one of them the given one."""
    if count == 1:
        return [layer]
    spread = {round(i * (n_layers - 1) / (count - 1)) for i in range(count)}
    nearest = min(spread, key=lambda one: abs(one - layer))
    return sorted(spread - {nearest} | {layer})
