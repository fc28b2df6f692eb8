"""Path patching between heads: what does a sender do for the answer through one reader alone?

The sender's output in the source run is put into the stream that one reader of a later head sees, and into nothing
else. The reader's new value is computed by the model's own norm and projection (`model/readers.py`); written in place
of the old one, it is a row like any other. So every pair of heads at the last token costs one row, which enters at the
receiver's layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.intervention import Replace
from tv_lens.metrics import Answers, MetricLike, Readout, as_metric, info_of, logit_diff
from tv_lens.model.capture import bytes_per_prompt, floats_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.readers import NORMS, RECOMPUTED, readers_of
from tv_lens.model.verb import verb
from tv_lens.patching.effects import as_effects
from tv_lens.patching.plain_runs import DIRECTIONS, Contrast, Measured
from tv_lens.patching.sender_changes import sender_changes
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.edits import index_of
from tv_lens.rows.engine import PlacedEdit, Row, why_whole_passes
from tv_lens.rows.sharding import check_budget, run_parts, smallest_budget
from tv_lens.site import HeadLike, Site, parse_head
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.tasks.prompts import PromptPairs

READS = ("q", "k", "v")
REPORTED = ("engine", "engine_why", "folder", "damaged_shards")  # what the result says of how its shards were run
ROWS_AT_ONCE = 40_000  # rows are Python objects: no more than this at a time keeps them small beside the model

Head = tuple[int, int]


@renamed_keywords(run="folder=", plan="engine=")
@verb
def path_effects(
    model: HookedModel,
    pairs: PromptPairs,
    *,
    senders: Iterable[HeadLike] | None = None,
    receivers: Iterable[HeadLike] | None = None,
    reads: str = "q",
    metric: MetricLike = logit_diff,
    direction: str = "denoising",
    norm: str = RECOMPUTED,
    engine: str = "auto",
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """What every sender head does for the metric through one reader of every later head, at the last token.

    Everything else is as in the base run: other heads, and the MLPs between the two. So it is the direct path.

    Args:
        model: the model to patch.
        pairs: clean and corrupted prompts.
        senders: the heads, as (layer, head) or "a3.h1", whose output is exchanged; all of them if None.
        receivers: the heads that read it; where `reads` is "k" or "v" and heads share keys, the key-value groups, as
            "a3.kv1" or (layer, group). All of them if None.
        reads: which input of the receiver changes: "q", "k" or "v". At the last token a key or value is seen by that
            token alone, so "k" and "v" act through the receiver's attention to the last token only.
        metric: takes logits and answers, gives one number per example; or the name of a metric of `tv.metrics`.
        direction: "denoising" brings the sender's clean output into the corrupted run, "noising" the other way.
        norm: after attention (Gemma-2, OLMo-2): "recomputed" is exact, "held" as in `ExactEdges(norm="held")`.
        engine: "auto", "rows" or "passes" (see `run_rows`); the values are the same.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        folder: a folder that keeps finished shards, so that a killed call can continue; the values are the same.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x sender x receiver`, with names such as "a3.h1" and "a5.h2<q>", or "a5.kv0<v>" for a group of
        heads; a value is missing where the receiver is not in a later layer than the sender.

    Sign:
        The metric's, as a difference from the base run; 0 where the path makes no difference.

    Source:
        Wang et al. 2022 (arXiv 2211.00593), path patching; Goldowsky-Dill et al. 2023 (arXiv 2304.05969). Wang et al.
        let the MLPs between sender and receiver follow the change; here they keep their values, as in the latter.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.task_switch(n=4)
        >>> effects = tv.path_effects(known.model, known.prompts, receivers=["a2.h0"], progress=False)
        >>> effects.best()["sender"], known.edges & {"a0.h1->a2.h0<q>"}
        ('a0.h1', frozenset({'a0.h1->a2.h0<q>'}))
    """
    if direction not in DIRECTIONS:
        raise unknown("patching direction", direction, DIRECTIONS)

    metric = as_metric(metric)

    # 1. the paths: every sender with one reader of every later head
    paths = _Paths.of(model, senders, receivers, reads, norm)

    # 2. the metric of the two runs without a patch, and with each path's change in the base run
    tokens = pairs.tokenize(model)
    runs = _PathRuns(model, Contrast.of(model, tokens, metric, direction, engine, memory_budget), paths)
    measured = runs.measured(Work.on(model, "path_effects", {**runs.config, "direction": direction}, folder, progress))
    values, about = measured.values.view(len(paths.links), -1).T, measured.provenance

    # 3. the labelled result
    info = info_of(metric)
    sweep = Sweep(
        paths.array(values),
        metric=info.name,
        units=info.units,
        sign=info.sign,
        clean=measured.clean,
        corrupted=measured.corrupted,
        name=f"{pairs.task}: effect of heads through later heads' {reads} ({direction})",
        allow_missing=True,
        provenance={
            "verb": "path_effects",
            **origin(model),
            "direction": direction,
            "reads": reads,
            "norm": norm,
            "pos": -1,
            "prompts": pairs.recipe,
            "links": len(paths.links),
            **{key: about[key] for key in REPORTED if key in about},
        },
    )
    return as_effects(sweep, sweep.corrupted if direction == "denoising" else sweep.clean, {})


@dataclass(frozen=True, eq=False)
class _Paths:
    """Every path from a sender to one reader of a later head."""

    links: list[tuple[Head, Head]]
    senders: list[Head]
    receivers: list[Head]
    reads: str
    norm: str
    grouped: bool  # whether the receivers are key-value groups of several heads

    @classmethod
    def of(
        cls,
        model: HookedModel,
        senders: Iterable[HeadLike] | None,
        receivers: Iterable[HeadLike] | None,
        reads: str,
        norm: str,
    ) -> _Paths:
        """The paths between the heads that are named; a head on none of them is left out."""
        if reads not in READS:
            raise unknown("reader", reads, READS)
        if norm not in NORMS:
            raise unknown("treatment of the norm after attention", norm, NORMS)
        grouped = reads != "q" and model.shape.n_kv_heads != model.shape.n_heads
        from_heads = _heads(model, senders, Site("z", 0), grouped=False)
        to_heads = _heads(model, receivers, Site(reads, 0), grouped)
        links = [(s, r) for r in to_heads for s in from_heads if s[0] < r[0]]
        if not links:
            raise EmptySelection("No receiver comes after a sender.", got=f"senders {from_heads}, receivers {to_heads}")
        sending, receiving = (set(heads) for heads in zip(*links))
        on_a_path = [s for s in from_heads if s in sending], [r for r in to_heads if r in receiving]
        return cls(links, *on_a_path, reads, norm, grouped)

    @property
    def written(self) -> tuple[str, ...]:
        """The components of a sender's layer that its change is computed from."""
        return ("z",) if self.norm == RECOMPUTED else ("z", "attn_out")

    def bytes_per_example(self, model: HookedModel) -> int:
        """What one example's changes of the stream take, and the new values of every receiver for every sender."""
        shape = model.shape
        per_layer = (shape.n_kv_heads if self.grouped else shape.n_heads) * shape.d_head
        before = [sum(s[0] < layer for s in self.senders) for layer in {layer for layer, _ in self.receivers}]
        return 4 * (sum(before) * per_layer + 2 * len(self.senders) * shape.d_model)

    def array(self, values: Float[Tensor, "example link"]) -> xr.DataArray:
        """The values as `example x sender x receiver`; NaN where there is no path."""
        grid = np.full((len(values), len(self.senders), len(self.receivers)), np.nan)
        where = np.array([(self.senders.index(s), self.receivers.index(r)) for s, r in self.links])
        grid[:, where[:, 0], where[:, 1]] = values.numpy()
        coords = {
            "sender": [name(head) for head in self.senders],
            "receiver": [f"{name(head, self.grouped)}<{self.reads}>" for head in self.receivers],
        }
        return xr.DataArray(grid, dims=("example", "sender", "receiver"), coords=coords)


@dataclass(frozen=True, eq=False)
class _PathRuns:
    """Every path in every example, and the base run without a change, as if it were one more path.

    Path p in example e has the number `p * examples + e`.
    """

    model: HookedModel
    contrast: Contrast
    paths: _Paths

    @property
    def config(self) -> dict[str, object]:
        """What the values depend on, as far as these runs know it."""
        senders, receivers = (list(dict.fromkeys(heads)) for heads in zip(*self.paths.links))
        return {
            "answers": self.contrast.answers,
            "metric": self.contrast.metric,
            "engine": self.contrast.engine,
            "base": self.contrast.base,
            "source": self.contrast.source,
            "senders": senders,
            "receivers": receivers,
            "reads": self.paths.reads,
            **({} if self.paths.norm == RECOMPUTED else {"norm": self.paths.norm}),
            "memory_budget": self.contrast.budget,
        }

    def measured(self, work: Work) -> Measured:
        """The metric of every path in every example, and of the two runs without a patch."""
        parts = self.parts()
        of_source = torch.full((sum(map(len, parts)),), torch.nan, dtype=torch.float32, device="cpu")

        def questions(part: Sequence[int]) -> tuple[list[Row], Readout]:
            rows, readout, of_source[list(part)] = self.shard(part)
            return rows, readout

        result = run_parts(
            work,
            self.model,
            self.contrast.base,
            parts,
            questions,
            who="tv.path_effects",
            label="paths between heads",
            unit="paths",
            engine=self.contrast.engine,
            memory_budget=self.contrast.budget,
            beside={"source": of_source},
        )
        return self.contrast.measured(result, of_source)

    def parts(self) -> list[list[int]]:
        """The numbers in shards of some examples with all their paths."""
        n, links = len(self.contrast.base), range(len(self.paths.links) + 1)
        held = self.paths.bytes_per_example(self.model)
        self._check_budget(held)
        size = max(1, min(self.contrast.budget // held, ROWS_AT_ONCE // len(links)))
        return [
            [link * n + example for link in links for example in range(start, min(start + size, n))]
            for start in range(0, n, size)
        ]

    def _check_budget(self, held: int) -> None:
        """Refuses a budget that one example's values, its captures, or its rows do not fit."""
        model, base, shape = self.model, self.contrast.base, self.model.shape
        why = why_whole_passes(model, [Site(self.paths.reads, self.paths.receivers[0][0])], self.contrast.engine)
        last = [length - 1 for length in base.lengths.tolist()]
        of_rows = smallest_budget(model, base, range(len(base)), last, whole=why is not None)
        width, sites = max(base.width, self.contrast.source.width), (*self.paths.written, "resid_pre")
        per_layer = sum(floats_of(Site(name, 0, pos=-1), 1, shape) for name in sites)
        of_captures = bytes_per_prompt(shape, width, 1, model.dtype.itemsize) + 4 * per_layer * model.n_layers
        check_budget(model, self.contrast.budget, base, held, of_rows, of_captures)

    def shard(self, part: Sequence[int]) -> tuple[list[Row], Readout, Float[Tensor, "row"]]:
        """A shard's rows, path by path, their readout, and the metric of each row's source run."""
        n = len(self.contrast.base)
        examples = sorted({number % n for number in part})
        receivers, answers, of_source = _Receivers.of(self.model, self.contrast, examples, self.paths)
        rows = [row for link in self.paths.links for row in receivers.rows(*link, examples)]
        owners = index_of(part) % n - examples[0]
        return [*rows, *map(Row, examples)], Readout(self.contrast.metric, answers, owners), of_source[owners]


def name(head: Head, grouped: bool = False) -> str:
    """A head's name as the field writes it, "a3.h1"; of a key-value group that several heads share, "a3.kv1"."""
    return f"a{head[0]}.{'kv' if grouped else 'h'}{head[1]}"


def _heads(model: HookedModel, given: Iterable[HeadLike] | None, like: Site, grouped: bool) -> list[Head]:
    """The heads or key-value groups that are named, or all that the component has, each checked to be writable."""
    count = model.shape.size(like.entry.head_axis) or 0
    if given is None:
        model.registry.check(like, write=True)
        return [(layer, head) for layer in range(model.n_layers) for head in range(count)]
    given, shared = list(given), model.shape.n_kv_heads != model.shape.n_heads
    wrong = [head for head in given if shared and isinstance(head, str) and (".kv" in head) != grouped]
    if wrong:
        what, allowed = ("A key-value group", '"a3.kv1"') if grouped else ("A head", '"a3.h1"')
        raise InvalidArgument(f"{what} is asked for here.", got=repr(wrong[0]), allowed=allowed)
    heads = [parse_head(head) for head in given]
    for layer, head in heads:
        model.registry.check(Site(like.component, layer, head), write=True)
    if not heads:
        raise EmptySelection("No head was named.", allowed="senders=[(3, 1), (4, 0)], or None for all")
    return list(dict.fromkeys(heads))


@dataclass(frozen=True, eq=False)
class _Receivers:
    """The new values of the receivers of some examples: by layer, for each sender before it and each head."""

    base: TokenBatch
    reads: str
    senders: dict[Head, int]
    values: dict[int, Float[Tensor, "example sender head d_head"]]

    @classmethod
    def of(
        cls, model: HookedModel, contrast: Contrast, examples: Sequence[int], paths: _Paths
    ) -> tuple[_Receivers, Answers, Float[Tensor, "example"]]:
        """The new values in some examples, their answers, and the metric of their source runs."""
        receiving = sorted({layer for layer, _ in paths.receivers})
        senders = sorted(head for head in paths.senders if head[0] < receiving[-1])
        layers = sorted({layer for layer, _ in senders})
        outputs = [Site(part, layer, pos=-1) for layer in layers for part in paths.written]
        streams = [Site("resid_pre", layer, pos=-1) for layer in receiving]
        source, answers, of_source = contrast.source_run(examples, outputs)
        base = contrast.base_run(examples, [*outputs, *streams])
        changes = sender_changes(model, base, source, senders, paths.norm)
        readers, values = readers_of(model), {}
        for layer, stream in zip(receiving, streams):
            before = [at for at, head in enumerate(senders) if head[0] < layer]
            if before:
                seen = base[stream][:, None] + changes[:, before]
                values[layer] = readers.value(layer, paths.reads, seen.flatten(0, 1)).cpu().unflatten(0, seen.shape[:2])
        numbered = {head: at for at, head in enumerate(senders)}
        return cls(base.tokens, paths.reads, numbered, values), answers, of_source

    def rows(self, sender: Head, receiver: Head, examples: Sequence[int]) -> list[Row]:
        """One row per example; `examples` are their numbers among all."""
        layer, head = receiver
        values = self.values[layer][:, self.senders[sender], head]
        site, lengths = Site(self.reads, layer, head), self.base.lengths.tolist()
        return [
            Row(i, (PlacedEdit(Replace(site, value[None]), (length - 1,)),))
            for i, value, length in zip(examples, values, lengths)
        ]
