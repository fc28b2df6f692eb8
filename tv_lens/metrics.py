"""Metrics: logits at the answer position in, one number per example out.

A metric is a plain function `f(logits, answers) -> Float["batch"]`. What its number means (units, which way
is up, where zero is) travels with it as a `MetricInfo`, so that every table and figure can say so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.type_hints import check_function


@checks_kinds
@dataclass(frozen=True, eq=False)
class Answers:
    """The right answer of each example, and what else a metric compares with.

    Args:
        correct: first token of the clean answer.
        wrong: first token of the answer it is compared with (the corrupted prompt's, or a foil).
        reference: logits of the clean run, for metrics that compare whole distributions.
        number: the answer itself, where a model predicts numbers (`tv.lab`); `correct` is then the one logit's column.

    Example:
        >>> answers = Answers(torch.tensor([1]), torch.tensor([0]), reference=torch.eye(3)[:1], number=torch.ones(1))
        >>> " ".join(f"{name} {float(metric(torch.eye(3)[:1], answers)):.2g}" for name, metric in METRICS.items())
        'logit_diff -1 log_prob -1.6 prob 0.21 rank 1 kl 0 exact_match 0 squared_error 0'
    """

    correct: Int[Tensor, "batch"]
    wrong: Int[Tensor, "batch"] | None = None
    reference: Float[Tensor, "batch d_vocab"] | None = None
    number: Float[Tensor, "batch"] | None = None

    def __post_init__(self) -> None:
        if self.correct.ndim != 1:
            raise ShapeMismatch(
                "Answers need one token id per example.", got=list(self.correct.shape), allowed="[batch]"
            )
        for name in ("wrong", "reference", "number"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self.correct):
                raise ShapeMismatch(
                    f"Answers.{name} and Answers.correct differ in length.", got=len(part), allowed=len(self.correct)
                )
        for name in ("correct", "wrong"):
            part = getattr(self, name)
            if part is not None and len(part) and int(part.min()) < 0:
                raise InvalidArgument(f"Answers.{name} holds a negative token id.", got=int(part.min()))

    def __len__(self) -> int:
        return len(self.correct)

    def __repr__(self) -> str:
        present = {name: "no" if getattr(self, name) is None else "yes" for name in ("wrong", "reference")}
        return f"Answers(n={len(self)}, wrong={present['wrong']}, reference={present['reference']})"

    def select(self, index: Tensor | slice | Sequence[int]) -> Answers:
        """The answers of chosen examples; repeats are allowed, so that many rows can share one example.

        Args:
            index: a slice, integer positions, or a boolean mask.
        """
        if not isinstance(index, slice):
            index = index if isinstance(index, Tensor) else torch.from_numpy(np.array(index))
            index = index.reshape(-1) if index.dtype == torch.bool else index.reshape(-1).long()

        parts = {name: part for name, part in vars(self).items() if part is not None}
        at = {name: index if isinstance(index, slice) else index.to(part.device) for name, part in parts.items()}
        return Answers(**{name: part[at[name]] for name, part in parts.items()})

    def to(self, device: torch.device | str) -> Answers:
        """The same answers on another device."""
        wrong = None if self.wrong is None else self.wrong.to(device)
        reference = None if self.reference is None else self.reference.to(device)
        number = None if self.number is None else self.number.to(device)
        return Answers(self.correct.to(device), wrong, reference, number)


@dataclass(frozen=True)
class MetricInfo:
    """What a metric's number means.

    Args:
        name: the metric's name, as figures print it.
        units: what one unit of it is.
        sign: in words, which way is up and where zero is.
        zero: the value that means "towards neither answer"; a diverging colour scale is centred there.
        answers_only: the metric reads only the two answers' logits, so that the others need not be computed.
        needs_reference: the metric may read the clean run's logits, `Answers.reference`.
    """

    name: str
    units: str
    sign: str
    zero: float | None = None
    answers_only: bool = False
    needs_reference: bool = True


Metric = Callable[[Tensor, Answers], Tensor]
MetricLike = Metric | str


@checks_kinds
def metric(
    *,
    units: str,
    sign: str,
    zero: float | None = None,
    name: str | None = None,
    answers_only: bool = False,
    needs_reference: bool = True,
) -> Callable[[Metric], Metric]:
    """A decorator that gives a metric function its `MetricInfo`.

    Example:
        >>> @metric(units="logits", sign="higher: the answer's logit is larger; zero means nothing by itself")
        ... def answer_logit(logits, answers):
        ...     return logits.gather(1, answers.correct[:, None])[:, 0]
        >>> info_of(answer_logit).units
        'logits'
    """

    def attach(function: Metric) -> Metric:
        function.metric_info = MetricInfo(
            name or function.__name__, units, sign, zero, answers_only, needs_reference and not answers_only
        )
        return function

    return attach


def info_of(function: Metric) -> MetricInfo:
    """The `MetricInfo` of a metric; a plain function without one gets its own name and unstated units."""
    info = getattr(function, "metric_info", None)
    if isinstance(info, MetricInfo):
        return info
    if isinstance(function, functools.partial):
        return info_of(function.func)
    name = getattr(function, "__name__", type(function).__name__)
    return MetricInfo(name, "units not stated", "sign not stated by this metric")


def checked(function: Metric, logits: Float[Tensor, "batch d_vocab"], answers: Answers, where: str = "") -> Tensor:
    """The metric per example, `Float["batch"]`, or an error that names the rows it failed on.

    Args:
        function: any metric.
        logits: one row per example, at the position that predicts the answer.
        answers: one per row of logits.
        where: what was being measured, for the message ("layer=3, pos=7").
    """
    place = f" at {where}" if where else ""
    name = info_of(function).name
    if logits.ndim != 2 or len(logits) != len(answers):
        raise ShapeMismatch(
            f"Metric {name} was given logits that do not fit the answers{place}.",
            got=list(logits.shape),
            allowed=f"[{len(answers)}, d_vocab]",
        )
    for part in (answers.correct, answers.wrong):
        if part is not None and len(part) and int(part.max()) >= logits.shape[1]:
            raise InvalidArgument(
                f"An answer's token id is outside the model's vocabulary{place}.",
                got=int(part.max()),
                allowed=f"0 to {logits.shape[1] - 1}",
                do="tokenize the prompts with the tokenizer of the model that is run",
            )
    values = function(logits, answers)
    if not isinstance(values, Tensor) or tuple(values.shape) != (len(answers),):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeMismatch(
            f"Metric {name} must return one number per example{place}.",
            got=got,
            allowed=[len(answers)],
            do="reduce over the vocabulary only; the Sweep averages over examples",
        )
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0].tolist()
        shown = ", ".join(f"{row} ({values[row].item()})" for row in rows[:5])
        more = f", and {len(rows) - 5} more" if len(rows) > 5 else ""
        do = "look at these examples' logits; half-precision overflow is the usual cause: load with float32"
        if bool(torch.isfinite(logits[bad]).all()):
            do = "these examples' logits are finite: the metric itself divides by zero or takes a log of zero"
        error = NonFiniteMetric(
            f"Metric {name} is not finite for {len(rows)} of {len(values)} examples{place}.",
            got=f"rows {shown}{more}",
            do=do,
        )
        error.places = tuple((row, values[row].item()) for row in rows)
        raise error
    return values


class Readout:
    """A metric of rows of logits, where each row belongs to one example.

    Args:
        function: any metric.
        answers: the answers of the examples.
        owners: for each row the index of its example.
    """

    def __init__(self, function: Metric, answers: Answers, owners: Int[Tensor, "row"]):
        info = info_of(function)
        if not info.needs_reference:  # whole rows of logits, which would be copied for every batch
            answers = replace(answers, reference=None)
        self._function, self._answers, self._owners = function, answers, owners
        self._narrow = info.answers_only and answers.wrong is not None

    def columns(self, rows: Int[Tensor, "n"]) -> Int[Tensor, "n k"] | None:
        """The tokens whose logits the metric reads, or None if it reads all logits."""
        if not self._narrow:
            return None
        chosen = self._answers.select(self._owners[rows])
        return torch.stack([chosen.correct, chosen.wrong], dim=1)

    def __call__(self, logits: Float[Tensor, "n columns"], rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The metric of each row, from the logits of the two columns where `columns` names them."""
        chosen = self._answers.select(self._owners[rows])
        if self._narrow:
            first = torch.zeros(len(rows), dtype=torch.long, device="cpu")
            chosen = Answers(first, first + 1)
        return checked(self._function, logits, chosen, "an edited run")


def _at(values: Float[Tensor, "batch d_vocab"], ids: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    return values.gather(1, ids.to(values.device)[:, None]).squeeze(1)


def _needed(answers: Answers, part: str, name: str, do: str) -> Tensor:
    value = getattr(answers, part)
    if value is None:
        raise InvalidArgument(f"Metric {name} needs Answers.{part}, and these answers have none.", do=do)
    return value


@metric(
    units="logits",
    zero=0.0,
    answers_only=True,
    sign="higher: towards the clean answer; 0: both answers equally likely; below 0: towards the wrong one",
)
@checks_kinds
def logit_diff(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Logit of the correct answer minus logit of the wrong one, by first tokens.

    Sign: higher is towards the clean answer; zero is indifference.
    """
    wrong = _needed(answers, "wrong", "logit_diff", "use prompt pairs whose corrupted answers differ, or log_prob")
    logits = logits.float()
    return _at(logits, answers.correct) - _at(logits, wrong)


@metric(
    units="nats",
    sign="higher: the clean answer is more probable; 0 is certainty, values are negative",
    needs_reference=False,
)
@checks_kinds
def log_prob(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Log-probability of the correct answer's first token."""
    logits = logits.float()
    return _at(logits, answers.correct) - logits.logsumexp(dim=1)


@metric(units="probability", sign="higher: the clean answer is more probable; from 0 to 1", needs_reference=False)
@checks_kinds
def prob(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Probability of the correct answer's first token."""
    return log_prob(logits, answers).exp()


@metric(units="tokens", sign="lower is better; 0: the clean answer is the top prediction", needs_reference=False)
@checks_kinds
def rank(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """How many tokens are predicted before the correct answer's first token.

    Of tokens with equal logits the one with the lower id counts as first, so `rank == 0` is `exact_match`.
    """
    own = _at(logits, answers.correct)[:, None]
    ids = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (ids < answers.correct.to(logits.device)[:, None]))
    # Every comparison with NaN is false: without this a row of NaN would report the best rank.
    unreadable = logits.isnan().any(dim=1)
    return before.sum(dim=1).float().masked_fill(unreadable, float("nan"))


@metric(units="nats", sign="lower: closer to the clean run; 0: the same distribution as the clean run")
@checks_kinds
def kl(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Kullback-Leibler divergence KL(clean || this) of the two runs' next-token distributions."""
    reference = _needed(answers, "reference", "kl", "pass the clean run's logits as Answers(reference=...)")
    clean = reference.to(logits.device).float().log_softmax(dim=1)
    terms = clean.exp() * (clean - logits.float().log_softmax(dim=1))
    return terms.masked_fill(clean == -torch.inf, 0.0).sum(dim=1)  # 0 log 0 is 0


@metric(
    units="share of examples",
    sign="higher is better; 1: the answer's first token is the top prediction",
    needs_reference=False,
)
@checks_kinds
def exact_match(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """1 where the top prediction is the correct answer's first token, else 0."""
    ranks = rank(logits, answers)
    return torch.where(ranks.isnan(), ranks, (ranks == 0).float())


@metric(units="squared units of y", sign="lower is better; 0: the prediction is the answer", needs_reference=False)
def squared_error(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Square of prediction minus answer, for a model whose single logit is a number (`tv.lab`)."""
    number = _needed(answers, "number", "squared_error", "give it the prompts of a regressor (tv.lab)")
    return (logits[:, 0].float() - number.to(logits.device)) ** 2


METRICS: dict[str, Metric] = {
    each.metric_info.name: each for each in (logit_diff, log_prob, prob, rank, kl, exact_match, squared_error)
}


def as_metric(metric: MetricLike) -> Metric:
    """The metric itself, or the built-in one of that name.

    Raises:
        UnknownName, WrongKind: no metric has that name, or a function does not take logits and answers.
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        return METRICS[metric]
    check_function(metric, "metric", "logits", "answers")
    return metric
