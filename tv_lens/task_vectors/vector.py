"""`TaskVector`: a direction, the site where it acts, and the model, task and prompts that it comes from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tv_lens.errors import InvalidArgument, ModelMismatch, ShapeMismatch, SiteError
from tv_lens.intervention import Add, Replace
from tv_lens.kinds import checks_kinds, checks_methods
from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import plain
from tv_lens.site import COMPONENTS, Component, Site
from tv_lens.task_vectors import vector_file


@checks_methods
@checks_kinds
@dataclass(frozen=True, eq=False, repr=False)
class TaskVector:
    """A vector of the residual stream that stands for a task.

    Vectors of one model and site can be added, subtracted and scaled. `replace()` and `add()` return interventions that
    act where the vector was read.

    Args:
        direction: the numbers, in float32 on the host.
        site: where it was read and where it acts.
        task: the task's name; of a sum or another combination, its formula.
        method: how it was extracted.
        prompts: the recipe of the prompts it was extracted from.
        model: the model's name.
        fingerprint: the fingerprint of the model's config and weights.
        tokenizer: the fingerprint of the tokenizer's vocabulary.
        selection: the sweep by which the layer was chosen, if it was.

    Example:
        >>> a = TaskVector(torch.tensor([3.0, 0.0]), "resid_post[1]@-1", task="a")
        >>> b = TaskVector(torch.tensor([0.0, 4.0]), "resid_post[1]@-1", task="b")
        >>> (a - b).task, (a - b).norm, a.cosine(b)
        ('a - b', 5.0, 0.0)
        >>> (2 * a).add(scale=0.5)
        Add(resid_post[1]@-1)
    """

    direction: Float[Tensor, "d_model"]
    site: Site | str
    task: str = "task"
    method: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    fingerprint: str = ""
    tokenizer: str = ""
    selection: Sweep | None = None

    __array_ufunc__ = None  # so that a numpy number times a vector is a vector and not an array of vectors

    def __post_init__(self) -> None:
        site = Site.parse(self.site)
        check_component(site.entry)
        if self.direction.ndim != 1:
            raise ShapeMismatch(
                "A task vector is one direction.", got=f"shape {list(self.direction.shape)}", allowed="[d_model]"
            )
        if not torch.isfinite(self.direction).all():
            wrong = int((~torch.isfinite(self.direction)).sum())
            raise InvalidArgument(
                "A task vector is finite.", got=f"{wrong} NaN or infinite entries", do="look where it was computed."
            )
        direction = self.direction.detach().to("cpu", torch.float32).clone()
        for name, value in dict(
            site=site, direction=direction, method=plain(self.method, "method"), prompts=plain(self.prompts, "prompts")
        ).items():
            object.__setattr__(self, name, value)

    # ---- what it does -------------------------------------------------------------------------------------------

    def replace(self) -> Replace:
        """The intervention that replaces what its site holds by the vector (Hendel et al. 2023)."""
        return Replace(self.site, self.direction)

    def add(self, scale: int | float = 1.0) -> Add:
        """The intervention that adds `scale` times the vector to what its site holds (Todd et al. 2023)."""
        return Add(self.site, self.direction, float(scale))

    @property
    def own_scale(self) -> float | None:
        """How its method injects it: None replaces what its site holds, a number adds that multiple of the vector."""
        description = self.method
        while "injected_by" not in description and description.get("of"):
            description = description["of"][0]
        return 1.0 if description.get("injected_by") == "adding" else None

    def inject(self, scale: int | float | None = None) -> Replace | Add:
        """The intervention of its method; with a scale, the one that adds `scale` times the vector."""
        scale = self.own_scale if scale is None else scale
        return self.replace() if scale is None else self.add(scale)

    # ---- algebra ------------------------------------------------------------------------------------------------

    def __add__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        self._require_kin(other, same_site=True)
        return self._derived(self.direction + other.direction, f"{self.task} + {other.task}", other)

    def __radd__(self, other: object) -> TaskVector:
        # sum() starts from 0; with this, sum(vectors) / len(vectors) is their mean.
        return self if isinstance(other, Real) and other == 0 else NotImplemented

    def __sub__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        self._require_kin(other, same_site=True)
        return self._derived(self.direction - other.direction, f"{self.task} - {_grouped(other.task)}", other)

    def __mul__(self, scale: Real) -> TaskVector:
        if not isinstance(scale, Real):
            return NotImplemented
        return self._scaled(float(scale), f"{float(scale):g} * {_grouped(self.task)}")

    __rmul__ = __mul__

    def __truediv__(self, scale: Real) -> TaskVector:
        if not isinstance(scale, Real):
            return NotImplemented
        if scale == 0:
            raise InvalidArgument("A vector cannot be divided by zero.", got=f"{self.task} / 0")
        return self._scaled(1 / float(scale), f"{_grouped(self.task)} / {float(scale):g}")

    def __neg__(self) -> TaskVector:
        return self._derived(-self.direction, f"-{_grouped(self.task)}")

    @property
    def norm(self) -> float:
        """Its Euclidean length."""
        return float(self.direction.norm())

    def cosine(self, other: TaskVector) -> float:
        """The cosine of the angle to a vector of the same model, which may be of another layer."""
        self._require_kin(other, same_site=False)
        for vector in (self, other):
            if vector.norm == 0:
                raise InvalidArgument("A vector of length zero has no direction.", got=vector.task)
        return float(self.direction.double() @ other.direction.double() / (self.norm * other.norm))

    def random_like(self, seed: int = 0) -> TaskVector:
        """A vector of the same length and site in a random direction: the control for the size of the change alone."""
        drawn = torch.randn(
            len(self.direction), generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu"
        )
        drawn = drawn * (self.norm / float(drawn.norm()))
        vector = self._derived(drawn, f"random vector (seed {seed}, norm of {self.task})")
        return replace(vector, method={"random_like": seed, "of": [self.method]})

    def _scaled(self, scale: float, label: str) -> TaskVector:
        if not math.isfinite(scale):
            raise InvalidArgument("A vector is scaled by a finite number.", got=scale)
        return self._derived(scale * self.direction, label)

    def _derived(self, direction: Float[Tensor, "d_model"], label: str, *others: TaskVector) -> TaskVector:
        terms = (self, *others)
        return replace(
            self,
            direction=direction,
            task=label,
            selection=None,
            method={"algebra": label, "of": [term.method for term in terms]},
            prompts={"of": [term.prompts for term in terms]},
        )

    def _require_kin(self, other: TaskVector, same_site: bool) -> None:
        if self.fingerprint != other.fingerprint or len(self.direction) != len(other.direction):
            raise ModelMismatch(
                "Vectors of different models cannot be combined.",
                got=f"{self.task!r} of {self.birthplace} and {other.task!r} of {other.birthplace}",
                do="extract both on one model.",
            )
        if same_site and self.site != other.site:
            raise SiteError(
                "Vectors of different sites cannot be combined.",
                got=f"{self.site} and {other.site}",
                do=f"extract both at one layer, as in tv.methods.ResidualMean(layer={self.site.layer}).",
            )

    # ---- where it belongs ---------------------------------------------------------------------------------------

    @property
    def birthplace(self) -> str:
        """The model that it was extracted from, in words."""
        return _named(self.model, self.fingerprint, len(self.direction))

    def check(self, model: HookedModel) -> TaskVector:
        """This vector, if it was made on this model.

        Raises:
            ModelMismatch: the model has another width, other weights or another tokenizer.
        """
        again = "extract it on this model: tv.extract(model, task)."
        here = _named(model.name, model.fingerprint, model.shape.d_model)
        if len(self.direction) != model.shape.d_model:
            raise ModelMismatch(
                "This vector does not fit into this model.",
                got=f"a vector of {self.birthplace}",
                allowed=f"a vector of {here}",
                do=again,
            )
        if self.fingerprint and model.fingerprint and self.fingerprint != model.fingerprint:
            raise ModelMismatch(
                "This vector was made on another model.",
                got=f"a vector of {self.birthplace}",
                allowed=f"a vector of {here}",
                do=again + " To transplant it on purpose, use tv.Replace(vector.site, vector.direction).",
            )
        tokens = tokenizer_fingerprint(model.tokenizer)
        if self.tokenizer and tokens and self.tokenizer != tokens:
            raise ModelMismatch(
                "This vector was made with another tokenizer.",
                got=f"tokenizer {self.tokenizer}",
                allowed=f"tokenizer {tokens}",
                do="load the model with the tokenizer it was made with, or " + again,
            )
        self.site.check(model.shape)
        return self

    # ---- on disk ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes the vector with its origin to a safetensors file, whole or not at all, and returns the path."""
        texts = {name: getattr(self, name) for name in ("task", "model", "fingerprint", "tokenizer")}
        about = {**texts, "site": str(self.site), "method": self.method, "prompts": self.prompts}
        return vector_file.write(Path(path), self.direction, about, self.selection)

    @classmethod
    def load(cls, path: str | Path, model: HookedModel | None = None) -> TaskVector:
        """The vector that `save` wrote.

        Args:
            path: the file.
            model: if given, a vector of another model is refused.

        Raises:
            FormatError: the file is damaged or is something else.
            ModelMismatch: the vector was made on another model.
        """
        with vector_file.opened(Path(path)) as (direction, about, selection):
            vector = cls(direction, selection=selection, **about)
        return vector if model is None else vector.check(model)

    def __repr__(self) -> str:
        how = self.method.get("name") or ("algebra" if "algebra" in self.method else "by hand")
        counts = [f"{self.prompts[key]} {key}" for key in ("contexts", "shots") if key in self.prompts]
        lines = [
            f"TaskVector {self.task!r} at {self.site}",
            f"  norm {self.norm:.4g}; {', '.join([how, *counts])}",
            f"  made on {self.birthplace}",
        ]
        if self.selection is not None:
            best = float(self.selection.sel(layer=self.site.layer).mean())
            beside = audit_words(self.selection.provenance.get("audit", {}))
            lines.append(f"  layer chosen on {self.selection.n} dev queries: first-token accuracy {best:.2f}{beside}")
        return "\n".join(lines)


_FINGERPRINTS: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()
"""Of each tokenizer, with the size of the vocabulary that it had: hashing 50,000 tokens takes as long as a pass."""


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Sixteen hex digits of a tokenizer's sorted vocabulary; empty for a model without a tokenizer."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return _fingerprint_of({} if tokenizer is None else tokenizer.get_vocab())
    size, known = _FINGERPRINTS.get(tokenizer, (-1, ""))
    if size != len(tokenizer):  # new, or tokens were added
        known = _fingerprint_of(tokenizer.get_vocab())
        _FINGERPRINTS[tokenizer] = len(tokenizer), known
    return known


def _fingerprint_of(vocabulary: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()[:16] if vocabulary else ""


def check_component(entry: Component) -> Component:
    """The component, if it holds one vector of the residual stream's width at each token."""
    if entry.axes != ("batch", "pos", "d_model"):
        fitting = [name for name, known in COMPONENTS.items() if known.axes == ("batch", "pos", "d_model")]
        raise SiteError(
            "A task vector has the residual stream's axes.",
            got=f"{entry.name}: {' '.join(entry.axes)}",
            allowed=", ".join(fitting),
        )
    return entry


def audit_words(audit: Mapping[str, Any]) -> str:
    """What guessing scores, in words that follow an accuracy; empty if there was no audit."""
    if not audit:
        return ""
    return (
        f" (majority guess {audit['majority_rate']:.2f}, copied input {audit['copy_rate']:.2f}, "
        f"single-token answers {audit['single_token_share']:.0%})"
    )


def _named(model: str, fingerprint: str, width: int) -> str:
    return f"{model or 'an unnamed model'} ({fingerprint or 'no fingerprint'}, d_model {width})"


def _grouped(label: str) -> str:
    return f"({label})" if " " in label else label
