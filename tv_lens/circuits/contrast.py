"""The clean and the corrupted side of a circuit search, as tokens: prompts, answers, and the places of edges.

The clean run holds what is traced: it reads the clean prompt of a pair, or a prompt with the source injected. The
corrupted run lacks it: it reads the corrupted prompt, or the same prompt without the source (or with another
intervention in its place, the baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.circuits.nodes import LAST, Position, check_place
from tv_lens.errors import InvalidArgument, MisalignedPrompts, ShapeMismatch, unknown
from tv_lens.intervention import Intervention
from tv_lens.kinds import checks_kinds
from tv_lens.metrics import Answers, MetricLike, as_metric
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_attributes, renamed_keywords
from tv_lens.site import Site
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.tokenized import TokenizedPrompts, TokenSpan

FOLDS = ("last", "all", "spans", "kinds", "sum")


@renamed_keywords(tokens_a="clean=", tokens_b="corrupted=")
@checks_kinds
@dataclass(frozen=True, eq=False, repr=False)
class Contrast:
    """Clean prompts beside corrupted ones, as tokens. `discover` makes one from prompts; a caller may make one by hand.

    Args:
        clean: what the clean run reads.
        corrupted: what the corrupted run reads: other prompts, or the same ones where an injected vector is the
            difference.
        answers: of each example, for the metric.
        spans: where the prompts have named spans, those of each prompt.
        about: what reproduces the prompts, as values that JSON can hold.
    """

    clean: TokenBatch
    corrupted: TokenBatch
    answers: Answers
    spans: Sequence[tuple[TokenSpan, ...]] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    __getattr__ = renamed_attributes(tokens_a="contrast.clean", tokens_b="contrast.corrupted")

    def __post_init__(self) -> None:
        if not len(self.clean) == len(self.corrupted) == len(self.answers):
            raise ShapeMismatch(
                "Clean prompts, corrupted prompts and answers must be equally many.",
                got=f"{len(self.clean)}, {len(self.corrupted)}, {len(self.answers)}",
            )
        if self.clean.lengths.tolist() != self.corrupted.lengths.tolist():
            rows = (self.clean.lengths.cpu() != self.corrupted.lengths.cpu()).nonzero()[:, 0].tolist()
            raise MisalignedPrompts(
                "The clean and the corrupted prompts do not line up.",
                got=f"pair {rows[0]} has {int(self.clean.lengths[rows[0]])} and "
                f"{int(self.corrupted.lengths[rows[0]])} tokens",
                allowed="the same number of tokens on both sides",
                do="pairs.uniform(model) draws pairs that line up.",
            )

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def is_uniform(self) -> bool:
        """Whether a position means the same in every prompt."""
        alike = len(set(self.clean.lengths.tolist())) == 1
        return alike and (self.spans is None or len(set(self.spans)) == 1)

    def __repr__(self) -> str:
        return f"Contrast({len(self)} examples, {self.clean!r})"


def contrast_of(model: HookedModel, prompts: Prompts | PromptPairs | Contrast, source: Intervention | None) -> Contrast:
    """The prompts as tokens of the clean and the corrupted run.

    Raises:
        InvalidArgument: prompts without a source, or pairs with one: it would be unclear what the clean and the
            corrupted run differ in.
        MisalignedPrompts: the two sides of a pair do not line up.
    """
    if isinstance(prompts, PromptPairs):
        if source is not None:
            raise InvalidArgument(
                "Pairs of prompts differ already, so a source would be a second difference.",
                got="pairs and source=",
                do="use task.queries(...) with source=, or pairs without.",
            )
        tokenized = prompts.tokenize(model)
        tokenized.check_aligned()
        return Contrast(
            tokenized.clean.tokens,
            tokenized.corrupted.tokens,
            tokenized.answers,
            tokenized.clean.token_spans,
            {"task": prompts.task, "prompts": prompts.recipe},
        )
    if isinstance(prompts, Contrast):
        return prompts
    if source is None:
        raise InvalidArgument(
            "Prompts alone do not say what the clean run has and the corrupted run lacks.",
            got="prompts without source=",
            do="give source=vector.replace(), or pairs: task.pairs(...).",
        )
    tokenized: TokenizedPrompts = prompts.tokenize(model)
    return Contrast(
        tokenized.tokens,
        tokenized.tokens,
        tokenized.answers,
        tokenized.token_spans,
        {"task": prompts.task, "prompts": prompts.recipe},
    )


def positions_for(contrast: Contrast, source: Site | None, fold: str | None) -> tuple[Position, ...]:
    """The places where edges live.

    Args:
        contrast: the prompts.
        source: where a vector is injected; nothing before its position can differ.
        fold: "last" (the last token alone), "all" (every token), "spans" (every span), "kinds" (spans of one kind
            together, whichever demonstration they belong to), "sum" (one place). None is "last" for a source at the
            last token and "spans" otherwise.

    Raises:
        MisalignedPrompts: a place would not mean the same in every prompt.
        PositionError: the source lies beyond some prompt.
    """
    if source is not None:
        contrast.clean.index(int(source.pos))  # an error names the prompt that has no such position
    at_last = source is not None and source.pos == -1
    fold = fold or ("last" if at_last else "spans")
    if fold not in FOLDS:
        raise unknown("way to treat positions", fold, FOLDS)
    if at_last:
        return LAST  # whatever was requested: no other position differs
    if fold == "last":
        raise InvalidArgument(
            "The clean and the corrupted run differ before their last token, so its edges alone are not a circuit.",
            got='pos="last"',
            allowed='"all", "spans", "kinds", "sum"',
        )
    if not contrast.is_uniform:
        row = _first_odd(contrast)
        raise MisalignedPrompts(
            "The prompts differ in structure, so the positions of edges have no one meaning.",
            got=f"prompts 0 and {row} differ ({contrast.clean!r})",
            allowed="prompts whose spans stand at the same tokens",
            do="pairs.uniform(model) draws such prompts.",
        )
    width = int(contrast.clean.lengths[0])
    first = 0 if source is None else int(source.pos) % width
    each_token = [TokenSpan(f"t{i}", None, i, i + 1) for i in range(width)]
    spans = each_token if contrast.spans is None else contrast.spans[0]
    places: dict[str, list[int]] = {}
    for span in spans:
        for token in range(max(span.start, first), span.end):
            places.setdefault(_label(span, token, fold), []).append(token)
    return tuple(Position(label, tuple(members)) for label, members in places.items())


def _label(span: TokenSpan, token: int, fold: str) -> str:
    if fold == "sum":
        return "all"
    if fold == "kinds":
        return span.label if span.demo is None else span.label.removesuffix(str(span.demo))
    many = fold == "all" and span.end - span.start > 1
    return f"{span.label}.{token - span.start}" if many else span.label


def _first_odd(contrast: Contrast) -> int:
    lengths = contrast.clean.lengths.tolist()
    spans = contrast.spans or [()] * len(lengths)
    return next(i for i in range(len(lengths)) if lengths[i] != lengths[0] or spans[i] != spans[0])


@checks_kinds
@dataclass(frozen=True, eq=False)
class Projection:
    """A readout in place of the logits: how far the stream at a site lies along a direction.

    The number is the dot product with the direction divided by its squared length: 1 means "one whole vector".

    Args:
        site: a place in the residual stream at one position, such as "resid_post[20]@-1".
        direction: the direction, such as a task vector's.

    Example:
        >>> Projection("resid_post[1]@-1", torch.eye(4)[0])
        Projection(site=resid_post[1]@-1, direction=tensor([1., 0., 0., 0.]))
    """

    site: Site | str
    direction: Float[Tensor, "d_model"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        if not bool(self.direction.any()) or not bool(torch.isfinite(self.direction).all()):
            raise InvalidArgument(
                "A projection needs a finite direction that is not zero.", got=f"norm {float(self.direction.norm())}"
            )

    def read(self, streams: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
        """The projection of each stream."""
        direction = self.direction.to(streams.device, torch.float32)
        return streams @ direction / direction.square().sum()


@checks_kinds
@dataclass(frozen=True, eq=False)
class CircuitQuestion:
    """Source, baseline, target, metric and positions of a circuit search: everything but the model and the prompts.

    Scores keep it, so that their circuits can be tested on other prompts without repeating it. It is not saved with
    them.

    Args:
        source: what the clean run has, such as `vector.replace()`; None where pairs of prompts are the difference.
        against: the baseline: what the corrupted run has at the same site instead of nothing.
        target: what is read at the end instead of the logits.
        metric: logits and answers to one number per example; the search's default if None.
        pos: where edges live, as in `discover`.

    Example:
        >>> from tv_lens.intervention import Zero
        >>> CircuitQuestion(source=Zero("resid_post[1]@-1")).source
        Zero(resid_post[1]@-1)
    """

    source: Intervention | None = None
    against: Intervention | None = None
    target: Projection | None = None
    metric: MetricLike | None = None
    pos: str | None = None

    def __post_init__(self) -> None:
        for end, one in (("source", self.source), ("target", self.target)):
            if one is not None:
                check_place(end, one.site)
        if self.metric is not None:
            object.__setattr__(self, "metric", as_metric(self.metric))
        if self.against is not None and (self.source is None or self.against.site != self.source.site):
            allowed = f"an intervention at {self.source.site}" if self.source else "a source= beside it"
            raise InvalidArgument(
                "The baseline of a source acts at the source's site.",
                allowed=allowed,
                got=f"against={self.against.label}",
            )
        for one in (self.source, self.against):
            if one is not None and one.mixes_prompts:
                raise InvalidArgument(
                    f"{one.label} mixes the prompts of a batch, and a circuit is one prompt's.",
                    do="compute the value first: Replace(site, value).",
                )
