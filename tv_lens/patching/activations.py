"""Activation patching: what does an activation of one run do in another?

`patch` reads as three phases: name the cells of the sweep, write each cell's activations of the source run into the
base run and read the metric, and label the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.intervention import Add, Replace
from tv_lens.metrics import MetricLike, Readout, as_metric, info_of, logit_diff
from tv_lens.model.capture import Capture, bytes_per_prompt, floats_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.patching.alignment import aligned
from tv_lens.patching.cells import Cell, SitesLike, array_of, axes_of, cells_of, positions_of, targets_of
from tv_lens.patching.plain_runs import DIRECTIONS, Contrast, Measured
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.edits import index_of
from tv_lens.rows.engine import PlacedEdit, Row, why_whole_passes
from tv_lens.rows.sharding import check_budget, cut_rows, run_parts, smallest_budget
from tv_lens.site import Site
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.tasks.prompts import PromptPairs
from tv_lens.tasks.tokenized import TokenizedPairs

MODES = ("replace", "add")


@renamed_keywords(run="folder=", plan="engine=")
@verb
def patch(
    model: HookedModel,
    pairs: PromptPairs,
    sites: SitesLike | Mapping[str, SitesLike],
    *,
    over: Sequence[str] | None = None,
    metric: MetricLike = logit_diff,
    direction: str = "denoising",
    mode: str = "replace",
    scales: Sequence[float | int] | None = None,
    engine: str = "auto",
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The metric with activations of the source run written into the base run, one cell at a time.

    Args:
        model: the model to patch.
        pairs: clean and corrupted prompts. Where a sweep over positions needs prompts of one structure and these
            are not, they are drawn again from words of one token shape (`pairs.uniform`), and the provenance says so.
        sites: what is patched; what `over` does not name is patched together. Named sets of sites, such as
            `{"movers": ["z[9].h1", "z[9].h6"], "both layers": ["mlp_out[3]", "mlp_out[7]"]}`, are patched set by set.
        over: the sweep's axes, of "set", "component", "layer", "head", "pos", "span", "scale"; if None, the sets where
            sites come in sets, else layers and positions.
        metric: takes logits and answers, gives one number per example; or the name of a metric of `tv.metrics`.
        direction: "denoising" writes clean activations into the corrupted run (does this restore the answer?),
            "noising" corrupted ones into the clean run (does this break it?).
        mode: "replace" puts the source run's activation in the base run's place, "add" adds the difference of the two
            runs, times a scale: at one site, scale 1 is the same as to replace.
        scales: the factors of the difference that "add" adds: one number, or those of the axis "scale".
        engine: how the cells are run: "auto", "rows" or "passes" (see `run_rows`); the values are the same.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        folder: a folder that keeps finished shards, so that a killed sweep can continue; the values are the same.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x over`, with the values of the clean and the corrupted run beside it.

    Raises:
        MisalignedPrompts: clean and corrupted do not line up where the sweep needs it.
        SiteNotWritable: the model would discard an edit at one of the sites.
        RunMismatch: `folder` was begun with another configuration.

    Sign:
        The metric's own. `sweep.recovery()` is 0 at the corrupted run and 1 at the clean one, in both directions.

    Source:
        Meng et al. 2022 (arXiv 2202.05262), causal tracing; Heimersheim and Nanda 2024 (arXiv 2404.15255), names.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=8)  # a tiny model whose circuit is known
        >>> sweep = tv.patch(known.model, known.prompts, tv.sites("z", pos=-1), over=("layer", "head"), progress=False)
        >>> sweep.best()
        {'layer': 2, 'head': 1}
        >>> round(float(sweep.recovery().sel(layer=2, head=1).interval()["mean"]), 2)
        1.0
    """
    if direction not in DIRECTIONS:
        raise unknown("patching direction", direction, DIRECTIONS)

    # 1. the cells of the sweep, in every example
    metric, over = as_metric(metric), axes_of(over, sites)
    scales = _scales(mode, scales, over)
    targets = targets_of(model, sites, over)
    tokens, alignment = aligned(model, pairs, [target.site for target in targets], over)
    cells = cells_of(tokens, targets, over, scales)
    contrast = Contrast.of(model, tokens, metric, direction, engine, memory_budget)
    runs = _PatchedRuns(model, tokens, contrast, cells, mode, engine)

    # 2. the metric of the two runs without a patch, and with the source run's activations in each cell
    config = {
        **runs.config,
        "prompts": pairs.recipe,
        "over": over,
        "sites": [[target.set, str(target.site)] for target in targets],
        "direction": direction,
        "scales": scales,
    }
    measured = runs.measured(Work.on(model, "patch", config, folder, progress))
    values = measured.values.view(len(cells), -1).double().numpy().T

    # 3. the labelled result
    info = info_of(metric)
    return Sweep(
        values=array_of(values, cells, over, tokens),
        metric=info.name,
        units=info.units,
        sign=info.sign,
        clean=measured.clean,
        corrupted=measured.corrupted,
        name=f"{direction} {', '.join(sorted({target.site.component for target in targets}))} of {pairs.task}",
        provenance={
            "verb": "patch",
            **origin(model),
            "direction": direction,
            "mode": mode,
            "prompts": pairs.recipe,
            **alignment,
            **measured.provenance,
            "zero": info.zero,
        },
    )


def _scales(mode: str, scales: Sequence[float | int] | None, over: Sequence[str]) -> list[float]:
    """The factors by which each difference is added; 1 where it is not scaled."""
    if mode not in MODES:
        raise unknown("way of patching", mode, MODES)
    if mode == "replace" and (scales is not None or "scale" in over):
        raise InvalidArgument(
            "What is replaced has no scale.",
            got=f"scales={scales}, over={tuple(over)}",
            do='mode="add" adds the difference of the two runs, scaled.',
        )
    factors = [1.0] if scales is None else [float(scale) for scale in scales]
    if not factors or ("scale" not in over and len(factors) > 1):
        raise InvalidArgument(
            "Several scales are swept over.",
            got=f"scales={scales}, over={tuple(over)}",
            do='name the axis: over=("layer", "scale").',
        )
    return factors


@dataclass(frozen=True, eq=False)
class _PatchedRuns:
    """Every cell in every example, and the base run without a patch, as if it were one more cell.

    Cell c in example e has the number `c * examples + e`.
    """

    model: HookedModel
    tokens: TokenizedPairs
    contrast: Contrast
    cells: list[Cell]
    mode: str
    engine: str

    @property
    def config(self) -> dict[str, object]:
        """What the values depend on, as far as these runs know it."""
        return {
            "clean": self.tokens.clean.tokens,
            "corrupted": self.tokens.corrupted.tokens,
            "answers": self.tokens.answers,
            "metric": self.contrast.metric,
            "mode": self.mode,
            "engine": self.kind,
            "memory_budget": self.contrast.budget,
            "shard_sizes": [len(part) for part in self.parts],
        }

    def measured(self, work: Work) -> Measured:
        """The metric of every cell in every example, and of the two runs without a patch."""
        of_source = torch.full((sum(map(len, self.parts)),), torch.nan, dtype=torch.float32, device="cpu")

        def questions(part: Sequence[int]) -> tuple[list[Row], Readout]:
            rows, readout, of_source[list(part)] = self.shard(part)
            return rows, readout

        result = run_parts(
            work,
            self.model,
            self.contrast.base,
            self.parts,
            questions,
            who="tv.patch",
            unit="patched runs",
            engine=self.engine,
            memory_budget=self.contrast.budget,
            beside={"source": of_source},
        )
        return self.contrast.measured(result, of_source)

    @cached_property
    def kind(self) -> str:
        """The engine that will run, and why where it is whole passes."""
        why = why_whole_passes(self.model, [site for cell in self.cells for site in cell.sites], self.engine)
        return "rows" if why is None else f"passes: {why}"

    @cached_property
    def lengths(self) -> tuple[list[int], list[int]]:
        """How many tokens each source prompt and each base prompt has."""
        return self.contrast.source.lengths.tolist(), self.contrast.base.lengths.tolist()

    @cached_property
    def parts(self) -> list[list[int]]:
        """The numbers in shards; the source run's activations of one shard fit the budget (at least one example's)."""
        n, last = len(self.contrast.base), [length - 1 for length in self.lengths[1]]
        starts = [
            min(min(self._places(cell, site, i)[1]) for site in cell.sites) for cell in self.cells for i in range(n)
        ]
        tensors = {site.tensor for cell in self.cells for site in cell.sites}
        source = self.contrast.source
        per_example = 4 * sum(floats_of(tensor, source.width, self.model.shape) for tensor in tensors)
        prompts, whole = [number % n for number in range(len(starts) + n)], self.kind != "rows"
        of_source = per_example + bytes_per_prompt(self.model.shape, source.width, 1, self.model.dtype.itemsize)
        budget = self.contrast.budget
        of_rows = smallest_budget(self.model, self.contrast.base, prompts, starts + last, whole=whole)
        check_budget(self.model, budget, self.contrast.base, of_source, of_rows)
        return cut_rows(prompts, starts + last, self.lengths[1], whole=whole, most_prompts=budget // per_example)

    def shard(self, part: Sequence[int]) -> tuple[list[Row], Readout, Float[Tensor, "row"]]:
        """A shard's rows and their readout, and the metric of each row's source run.

        A row is its example's base run, with the source run's activations written in where its cell says; the row of
        no cell is the base run itself.
        """
        numbers = [divmod(number, len(self.contrast.base)) for number in part]
        examples = sorted({i for _, i in numbers})
        places = {i: at for at, i in enumerate(examples)}
        sites = self._tensors(numbers)
        source, answers, of_source = self.contrast.source_run(examples, sites)
        bases = self.contrast.base_run(examples, sites) if self.mode == "add" else None
        rows = [
            Row(i) if cell == len(self.cells) else self._row(self.cells[cell], source, bases, places[i], i)
            for cell, i in numbers
        ]
        owners = index_of([places[i] for _, i in numbers])
        return rows, Readout(self.contrast.metric, answers, owners), of_source[owners]

    def _tensors(self, numbers: Sequence[tuple[int, int]]) -> list[Site]:
        chosen = {cell for cell, _ in numbers if cell < len(self.cells)}
        return sorted({site.tensor for cell in chosen for site in self.cells[cell].sites}, key=str)

    def _places(self, cell: Cell, site: Site, i: int) -> list[tuple[int, ...]]:
        """Where a cell's site lies in an example's source and base prompts."""
        spans = self.tokens.clean.token_spans[i]
        return [positions_of(cell, site, spans, lengths[i]) for lengths in self.lengths]

    def _row(self, cell: Cell, sources: Capture, bases: Capture | None, at: int, i: int) -> Row:
        """Example i's base run with the cell's source activations, which are entry `at` of the captures."""
        edits = []
        for site in cell.sites:
            source, base = self._places(cell, site, i)
            place, value = replace(site, pos=None), _value(sources, site, at, source)
            if bases is None:
                edits.append(PlacedEdit(Replace(place, value), base))
            else:
                edits.append(PlacedEdit(Add(place, cell.scale * (value - _value(bases, site, at, base))), base))
        return Row(i, tuple(edits))


def _value(capture: Capture, site: Site, at: int, positions: Sequence[int]) -> Float[Tensor, "pos *axes"]:
    value = capture[site.tensor][at]  # pos *axes, or head query_pos key_pos
    if site.entry.position_axis == "query_pos":
        value = value.transpose(0, 1)
    if site.head is not None:
        value = value[:, site.head]
    return value[list(positions)]
