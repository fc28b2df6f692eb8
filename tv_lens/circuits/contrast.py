"""What two runs are held against each other, as tokens: prompts, their twins, their answers, the places of edges."""

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
from tv_lens.metrics import Answers, Metric
from tv_lens.model.hooked_model import HookedModel
from tv_lens.site import Site
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.tokenized import TokenizedPrompts, TokenSpan

FOLDS = ("last", "all", "spans", "kinds", "sum")


@dataclass(frozen=True, eq=False, repr=False)
class Contrast:
    """Prompts of run A beside those of run B, as tokens; what `discover` makes of prompts, or a caller by hand.

    Args:
        tokens_a: what run A reads (the clean prompts).
        tokens_b: what run B reads: the corrupted prompts, or the same ones where an injected vector is the difference.
        answers: of each example, for the metric.
        spans: where the prompts have named spans, those of each prompt.
        about: what reproduces the prompts, as JSON holds it.
    """

    tokens_a: TokenBatch
    tokens_b: TokenBatch
    answers: Answers
    spans: Sequence[tuple[TokenSpan, ...]] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.tokens_a) == len(self.tokens_b) == len(self.answers):
            raise ShapeMismatch("Run A, run B and the answers must be equally many.",
                                got=f"{len(self.tokens_a)}, {len(self.tokens_b)}, {len(self.answers)}")  # fmt: skip
        if self.tokens_a.lengths.tolist() != self.tokens_b.lengths.tolist():
            rows = (self.tokens_a.lengths.cpu() != self.tokens_b.lengths.cpu()).nonzero()[:, 0].tolist()
            raise MisalignedPrompts("The prompts of run A and run B do not line up.",
                                    got=f"pair {rows[0]} has {int(self.tokens_a.lengths[rows[0]])} and "
                                    f"{int(self.tokens_b.lengths[rows[0]])} tokens",
                                    allowed="the same number of tokens on both sides",
                                    do="pairs.uniform(model) draws pairs that line up.")  # fmt: skip

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def is_uniform(self) -> bool:
        """Whether a position means the same in every prompt."""
        alike = len(set(self.tokens_a.lengths.tolist())) == 1
        return alike and (self.spans is None or len(set(self.spans)) == 1)

    def __repr__(self) -> str:
        return f"Contrast({len(self)} examples, {self.tokens_a!r})"


def contrast_of(model: HookedModel, prompts: Prompts | PromptPairs | Contrast, source: Intervention | None) -> Contrast:
    """The prompts as tokens of run A and run B.

    Raises:
        InvalidArgument: prompts without a source, or pairs with one: it would not be said what the runs differ in.
        MisalignedPrompts: the two sides of a pair do not line up.
    """
    if isinstance(prompts, PromptPairs):
        if source is not None:
            raise InvalidArgument("Pairs of prompts differ already, so a source would be a second difference.",
                                  got="pairs and source=", do="use task.queries(...) with source=, or pairs without.")  # fmt: skip
        both = prompts.tokenize(model)
        both.check_aligned()
        return Contrast(both.clean.tokens, both.corrupted.tokens, both.answers, both.clean.token_spans,
                        {"task": prompts.task, "prompts": prompts.recipe})  # fmt: skip
    if isinstance(prompts, Contrast):
        return prompts
    if source is None:
        raise InvalidArgument("Prompts alone do not say what run A has and run B lacks.", got="prompts without source=",
                              do="give source=vector.replace(), or pairs: task.pairs(...).")  # fmt: skip
    one: TokenizedPrompts = prompts.tokenize(model)
    return Contrast(one.tokens, one.tokens, one.answers, one.token_spans, {"task": prompts.task, "prompts": prompts.recipe})


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
        contrast.tokens_a.index(int(source.pos))  # every prompt has it, or this says which has not
    at_last = source is not None and source.pos == -1
    fold = fold or ("last" if at_last else "spans")
    if fold not in FOLDS:
        raise unknown("way to treat positions", fold, FOLDS)
    if at_last:
        return LAST  # whatever was asked for: nothing else differs
    if fold == "last":
        raise InvalidArgument("These runs differ before their last token, so its edges alone are not a circuit.",
                              got='positions="last"', allowed='"all", "spans", "kinds", "sum"')  # fmt: skip
    if not contrast.is_uniform:
        row = _first_odd(contrast)
        raise MisalignedPrompts("The prompts differ in structure, so the positions of edges have no one meaning.",
                                got=f"prompts 0 and {row} differ ({contrast.tokens_a!r})",
                                allowed="prompts whose spans stand at the same tokens",
                                do="pairs.uniform(model) draws such prompts.")  # fmt: skip
    width = int(contrast.tokens_a.lengths[0])
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
    lengths = contrast.tokens_a.lengths.tolist()
    spans = contrast.spans or [()] * len(lengths)
    return next(i for i in range(len(lengths)) if lengths[i] != lengths[0] or spans[i] != spans[0])


@dataclass(frozen=True, eq=False)
class Projection:
    """What is read instead of the logits: how far the stream at a site lies along a direction.

    The number is the dot product with the direction divided by its squared length: 1 means "one whole vector".

    Args:
        site: a place in the residual stream at one position, such as "resid_post[20]@-1".
        direction: the direction, such as a task vector's.
    """

    site: Site | str
    direction: Float[Tensor, "d_model"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        if not bool(self.direction.any()) or not bool(torch.isfinite(self.direction).all()):
            raise InvalidArgument("A projection needs a finite direction that is not zero.",
                                  got=f"norm {float(self.direction.norm())}")  # fmt: skip

    def read(self, streams: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
        """The projection of each stream."""
        direction = self.direction.to(streams.device, torch.float32)
        return streams @ direction / direction.square().sum()


@dataclass(frozen=True, eq=False)
class Setting:
    """What two runs differ in and what is read at the end, without the prompts.

    Scores keep it, so that a circuit can be tested on other prompts without being told all of it again. It is not saved
    with them.
    """

    source: Intervention | None = None
    against: Intervention | None = None
    target: Projection | None = None
    metric: Metric | None = None
    positions: str | None = None

    def __post_init__(self) -> None:
        for end, one in (("source", self.source), ("target", self.target)):
            if one is not None:
                check_place(end, one.site)
        if self.against is not None and (self.source is None or self.against.site != self.source.site):
            allowed = f"an intervention at {self.source.site}" if self.source else "a source= beside it"
            raise InvalidArgument("What a source is held against acts at the source's site.", allowed=allowed,
                                  got=f"against={self.against.label}")  # fmt: skip
        for one in (self.source, self.against):
            if one is not None and one.mixes_prompts:
                raise InvalidArgument(f"{one.label} mixes the prompts of a batch, and a circuit is one prompt's.",
                                      do="compute the value first: Replace(site, value).")  # fmt: skip
