"""Changes of the loss of a regressor by edits, which patch matrices and head ablations both measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.lab.branches import Branch, branched_predictions
from tv_lens.lab.family import Episodes, Family
from tv_lens.lab.regressor import Regressor
from tv_lens.progress import Bar
from tv_lens.results.sweep import Sweep
from tv_lens.storage.runner import Piece, Work

SCORED = ("sequence", "query")


@dataclass(frozen=True, eq=False)
class LossChanges:
    """The change of the loss in every branch, and the loss without an edit, for each latent task.

    Args:
        regressor: the network.
        scored: the losses, "sequence" or "query"; see `losses_of`.
        changes: the loss in a branch less the loss without an edit.
        untouched: the loss without an edit.
        record: what the provenance says of the folder that keeps the losses.
    """

    regressor: Regressor
    scored: Sequence[str]
    changes: Float[Tensor, "task branch n scored"]
    untouched: Float[Tensor, "task n scored"]
    record: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def measure(
        cls,
        regressor: Regressor,
        episodes: Sequence[Episodes],
        branches: Sequence[Branch],
        scored: Sequence[str],
        *,
        work: Work,
        unit: str,
        memory_budget: int | None,
    ) -> LossChanges:
        """The changes by every branch in the episodes of each task.

        Args:
            regressor: the network.
            episodes: of each latent task, equally many.
            branches: the edits.
            scored: the losses.
            work: the verb, and the folder that keeps the losses of each task.
            unit: what an episode in a branch is called on the progress bar.
            memory_budget: bytes that one pass may take beside the weights.
        """

        def losses(one: Episodes, bar: Bar) -> Piece:
            predictions = branched_predictions(
                regressor, one, branches, memory_budget=memory_budget, who=work.verb, bar=bar
            )
            return {"losses": losses_of(predictions, one, scored)}

        steps = [len(one.task) * len(branches) for one in episodes]
        finished = work.run(losses, episodes, label=work.verb.replace("_", " "), unit=unit, steps=steps)
        measured = torch.stack([torch.from_numpy(shard["losses"]) for shard in finished])
        untouched = measured[:, 0]
        return cls(regressor, scored, measured[:, 1:] - untouched[:, None], untouched, finished.provenance)

    def sweep(
        self,
        values: Tensor,
        axes: Mapping[str, Sequence[object]],
        *,
        verb: str,
        name: str,
        sign: str,
        settings: Mapping[str, object],
    ) -> Sweep:
        """The changes as a labelled result, with the untouched losses in its provenance.

        Args:
            values: `changes` with an axis for each label, examples first.
            axes: the labels of every axis but the first and the last, which is `scored`.
            verb: the caller.
            name: of the Sweep.
            sign: of the Sweep.
            settings: further provenance.
        """
        coords = {axis: list(labels) for axis, labels in {**axes, "scored": self.scored}.items()}
        return Sweep(
            xr.DataArray(values.numpy(), dims=("example", *coords), coords=coords),
            metric="change of squared error",
            units="squared units of y",
            sign=sign,
            zero=0.0,
            name=name,
            provenance={
                "verb": verb,
                **described(self.regressor),
                **settings,
                "untouched": self._untouched_means(),
                **self.record,
            },
        )

    def _untouched_means(self) -> dict[str, dict[str, float]]:
        """The mean loss of each task without an edit, by kind of loss."""
        names = family_of(self.regressor).task_names
        return {
            kind: {name: float(losses[:, i].mean()) for name, losses in zip(names, self.untouched)}
            for i, kind in enumerate(self.scored)
        }


def losses_of(
    predictions: Float[Tensor, "run n K"], episodes: Episodes, scored: Sequence[str]
) -> Float[Tensor, "run n scored"]:
    """Squared errors: the mean over the whole sequence, or that of the last prediction."""
    errors = (predictions.double() - episodes.y.double()).square()
    return torch.stack([errors.mean(2) if one == "sequence" else errors[:, :, -1] for one in scored], dim=2)


def family_of(regressor: Regressor) -> Family:
    """The family of a regressor that knows it."""
    if regressor.family is None:
        raise InvalidArgument(
            "This regressor does not say what it was trained on.",
            got=regressor.name,
            do="Regressor.of(weights, config, family=...), or load a training run.",
        )
    return regressor.family


def described(regressor: Regressor) -> dict[str, object]:
    """The provenance of a result: the network that it was measured on."""
    return {
        "model": regressor.name,
        "fingerprint": regressor.fingerprint,
        "step": regressor.step,
        "family": family_of(regressor).to_json(),
    }


def check_labels(what: str, given: Sequence[object], known: Sequence[object]) -> None:
    """Raises an error where the labels of an axis are none, repeated or unknown."""
    if not len(given) or len(set(given)) < len(given):
        raise EmptySelection(f"Name each {what} once, and one at least.", got=tuple(given), allowed=tuple(known))
    for one in given:
        if one not in known:
            raise unknown(what, one, tuple(known))
