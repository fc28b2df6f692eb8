"""The class of methods that score edges: a frozen dataclass each, and a new one is a new file."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.method_value import MethodValue
from tv_lens.storage.runner import Work

Scored = tuple[Float[Tensor, "example edge"], dict[str, Any]]


class EdgeMethod(MethodValue):
    """A way to find what each edge does: a frozen dataclass whose fields are its options.

    Attributes:
        approximate: whether the scores are estimates of the effects rather than the effects.
    """

    purpose: ClassVar[str] = "circuit discovery"
    examples: ClassVar[str] = (
        "tv.circuits.ExactEdges(), tv.circuits.EAP(), tv.circuits.EAPIG(), tv.circuits.ACDC(threshold)"
    )
    approximate: ClassVar[bool] = False

    @abstractmethod
    def score_edges(self, passes: ContrastPasses, work: Work, *, seed: int = 0) -> Scored:
        """The score of every edge in every example, NaN where it was not measured; and what the provenance says of it.

        Args:
            passes: the clean and the corrupted pass.
            work: where finished shards are kept. All that takes long goes through it, so that it can be resumed.
            seed: of every draw.
        """

    @property
    def gradient_taken(self) -> str | None:
        """Where gradients are taken: in the "clean" or the "corrupted" run, or along the "path"; None for none."""
        return None

    def own_choice(self, mean: Float[Tensor, "edge"]) -> Bool[Tensor, "edge"] | None:
        """The edges that the method itself would keep, from its mean scores; None for a method that only scores."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """The method's name and options, for the scores."""
        options = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"name": type(self).__name__, **options}
