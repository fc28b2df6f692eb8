"""What may be done at a site: a value put in its place, something added, a direction taken out.

An intervention is a pure function of the tensor it meets. It returns a new tensor and leaves the one that it was
given as it was, so that what was captured cannot change afterwards. It knows nothing of hooks: the room `model`
finds the tensor, cuts out the selected positions and head, and puts the result back.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument, ShapeMismatch, WrongKind
from tv_lens.kind_words import shown
from tv_lens.kinds import checks_kinds
from tv_lens.site import Site


@dataclass(frozen=True, eq=False)
class Intervention(ABC):
    """An edit at a site.

    `edit` receives what the site selects, batch first: `batch pos *axes` where the site names no position,
    `batch *axes` where it names one; there is no axis of heads where the site names a head. The library's own edits
    compute in float32 where the model has half precision, round once, and refuse a value that its dtype cannot hold.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> class Halve(Intervention):
        ...     def edit(self, x):
        ...         return x / 2
        >>> known, ones = induction(n=2), torch.ones(64)
        >>> edits = [Halve("z[2].h1"), Zero("z[2].h1"), Mean("z[2].h1@-1"), Resample("z[2].h1@-1")]
        >>> edits += [kind("resid_post[1]@-1", ones) for kind in (Replace, Add, Project)]
        >>> for edit in edits:
        ...     print(edit.label, list(known.model.run(known.prompts.clean.texts, edit).argmax(-1).tolist()))
        Halve(z[2].h1) [4, 7]
        Zero(z[2].h1) [0, 0]
        Mean(z[2].h1@-1) [7, 4]
        Resample(z[2].h1@-1) [7, 4]
        Replace(resid_post[1]@-1) [0, 0]
        Add(resid_post[1]@-1) [4, 7]
        Project(resid_post[1]@-1) [4, 7]
    """

    site: Site | str  # text is parsed, so after __post_init__ it is a Site

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))

    @abstractmethod
    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        """A new tensor of the same shape: what the site holds instead."""

    def then(self, other: Intervention) -> Stack:
        """Both edits at the same site, this one first; without `then`, two edits at one site are refused."""
        return Stack(self.site, (self, other))

    @property
    def mixes_prompts(self) -> bool:
        """Whether the edit of one prompt depends on the other prompts of its batch."""
        return False

    @property
    def label(self) -> str:
        """One line for `print(model.registry)`."""
        return f"{type(self).__name__}({self.site})"

    def __repr__(self) -> str:
        return self.label


def _wide(x: Tensor) -> Tensor:
    """The tensor in a dtype in which sums do not overflow: float32 for the half-precision types, otherwise its own."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _fitted(value: Tensor, x: Tensor, site: Site) -> Tensor:
    """The value on x's device, if it broadcasts to exactly the shape of x; in its own dtype, at least float32."""
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeMismatch(
            f"The value does not fit {site}.",
            got=f"shape {list(value.shape)}",
            allowed=f"{list(x.shape)}, or what broadcasts to it",
        )
    if value.dtype == torch.float64 and x.device.type == "mps":  # which has no such type
        value = value.float()
    return _wide(value.to(x.device))


def rounded(value: Tensor, x: Tensor, edit: Intervention) -> Tensor:
    """The edit's value in x's dtype.

    Raises:
        InvalidArgument: that dtype cannot hold it.
    """
    rounded = value.to(x.dtype)
    if value.dtype != x.dtype and not bool(torch.isfinite(rounded).all()):
        lost = value[torch.isfinite(value) & ~torch.isfinite(rounded)]
        if len(lost):
            kind = str(x.dtype).removeprefix("torch.")
            raise InvalidArgument(
                f"{edit.label} writes a value that the model's dtype cannot hold.",
                got=f"{float(lost.abs().max()):.6g} at {edit.site}",
                allowed=f"{kind} holds up to {torch.finfo(x.dtype).max:.6g}",
                do="write smaller values, or load the model in float32; bfloat16 has float32's range.",
            )
    return rounded


def _tensor(value: object, site: Site, name: str = "value") -> Tensor:
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, dtype=torch.float32, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise WrongKind(
                f"The {name} for {site} is no tensor, and cannot be made one.", got=shown(value), allowed="real numbers"
            ) from None
    if value.is_complex():
        raise WrongKind(
            f"The {name} for {site} is complex.",
            got=shown(value),
            allowed="real numbers",
            do=f"take its real part, {name}.real, or its size, {name}.abs()",
        )
    if not torch.isfinite(value).all():
        raise InvalidArgument(
            f"The value for {site} is not finite.",
            got=f"{int((~torch.isfinite(value)).sum())} NaN or infinite entries",
            do="look where it was computed.",
        )
    return value


_checks = functools.partial(checks_kinds, tensors=False)  # `_tensor` makes tensors of lists


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Replace(Intervention):
    """The site holds `value` instead.

    Args:
        value: broadcasts to what the site selects, e.g. `d_model`, or `batch d_model` for one value per prompt.
    """

    value: Float[Tensor, "*axes"]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", _tensor(self.value, self.site))

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        return rounded(_fitted(self.value, x, self.site), x, self).expand(x.shape)


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Add(Intervention):
    """`scale * vector` is added to what the site holds; a scale of 0 is no edit."""

    vector: Float[Tensor, "*axes"]
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", _tensor(self.vector, self.site, "vector"))
        if not math.isfinite(self.scale):
            raise InvalidArgument(f"The scale of Add({self.site}) is not finite.", got=f"scale={self.scale}")

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        return rounded(_wide(x) + self.scale * _fitted(self.vector, x, self.site), x, self)


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Zero(Intervention):
    """The site holds zeros: zero ablation."""

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        return torch.zeros_like(x)


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Mean(Intervention):
    """The site holds a mean: `value` over a reference set, or by default the mean over the batch's other prompts.

    The mean over the batch needs at least two prompts. It leaves each prompt's own value out, so that the value
    that a prompt receives holds nothing of that prompt.
    """

    value: Float[Tensor, "*axes"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value is not None:
            object.__setattr__(self, "value", _tensor(self.value, self.site))

    @property
    def mixes_prompts(self) -> bool:
        return self.value is None

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        if self.value is not None:
            return rounded(_fitted(self.value, x, self.site), x, self).expand(x.shape)
        if len(x) < 2:
            raise InvalidArgument(
                f"Mean({self.site}) over the batch needs at least two prompts.",
                got=f"{len(x)}",
                do="give value=, the mean over a reference set.",
            )
        wide = _wide(x)
        return rounded((wide.sum(0, keepdim=True) - wide) / (len(x) - 1), x, self)


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Resample(Intervention):
    """The site holds the value of another prompt of the batch (resample ablation).

    The seed draws the other prompt: each prompt gives its value once, and none receives its own.
    """

    seed: int = 0

    @property
    def mixes_prompts(self) -> bool:
        return True

    def partners(self, batch: int) -> list[int]:
        """For each prompt the index of the prompt whose value it receives: one random cycle through all of them."""
        if batch < 2:
            raise InvalidArgument(f"Resample({self.site}) needs at least two prompts.", got=f"{batch}")
        order = torch.randperm(batch, generator=torch.Generator().manual_seed(self.seed), device="cpu").tolist()
        partners = [0] * batch
        for here, there in zip(order, order[1:] + order[:1]):
            partners[here] = there
        return partners

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        return x[torch.tensor(self.partners(len(x)), device=x.device, dtype=torch.long)]


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Project(Intervention):
    """The site's component in a subspace is removed, or with `keep=True` is all that stays.

    Args:
        directions: one direction or several, over the site's last axis; they need not be orthogonal or of unit length.
        keep: keeps the subspace and removes the rest.
    """

    directions: Float[Tensor, "*n axis"]
    keep: bool = False
    _basis: Float[Tensor, "axis rank"] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        directions = _tensor(self.directions, self.site, "directions").float()
        if directions.ndim not in (1, 2):
            raise ShapeMismatch(
                "Directions are one vector or a list of vectors.",
                got=f"shape {list(directions.shape)}",
                allowed="[axis] or [n, axis]",
            )
        directions = directions[None] if directions.ndim == 1 else directions
        # An SVD, not QR: dependent directions must not add arbitrary ones to the basis.
        _, singular, rows = torch.linalg.svd(directions, full_matrices=False)
        rank = int((singular > singular.max() * 1e-5).sum()) if singular.any() else 0
        if rank == 0:
            raise InvalidArgument(f"Project({self.site}) needs a direction that is not zero.", got="zeros")
        object.__setattr__(self, "_basis", rows[:rank].T.contiguous())

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        if x.shape[-1] != self._basis.shape[0]:
            raise ShapeMismatch(
                f"The directions do not fit {self.site}.",
                got=f"length {self._basis.shape[0]}",
                allowed=f"length {x.shape[-1]}",
            )
        wide = _wide(x)
        basis = self._basis.to(device=x.device, dtype=wide.dtype)
        inside = (wide @ basis) @ basis.T
        return rounded(inside if self.keep else wide - inside, x, self)


@_checks
@dataclass(frozen=True, eq=False, repr=False)
class Stack(Intervention):
    """Several edits at one site, in order.

    Example:
        >>> Zero("z[2].h1").then(Add("z[2].h1", torch.ones(16)))
        Zero(z[2].h1) then Add(z[2].h1)
    """

    parts: tuple[Intervention, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in self.parts:
            if part.site != self.site:
                raise InvalidArgument(
                    "Only edits of the same site can be stacked.",
                    got=f"{part.site}",
                    allowed=f"{self.site}",
                    do="pass them side by side instead.",
                )

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        for part in self.parts:
            x = part.edit(x)
        return x

    def then(self, other: Intervention) -> Stack:
        return Stack(self.site, (*self.parts, other))

    @property
    def mixes_prompts(self) -> bool:
        return any(part.mixes_prompts for part in self.parts)

    @property
    def label(self) -> str:
        return " then ".join(part.label for part in self.parts)


def as_interventions(edits: Intervention | Sequence[Intervention]) -> tuple[Intervention, ...]:
    """One intervention or several, as a tuple; anything else is refused by its type."""
    interventions = tuple(edits) if isinstance(edits, Iterable) else (edits,)
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise InvalidArgument(
                "This is not an intervention.",
                got=repr(type(intervention).__name__),
                allowed="tv.Replace, Add, Zero, Mean, Resample, Project, or vector.replace()",
            )
    return interventions
