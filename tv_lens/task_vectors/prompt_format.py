"""What the format of a prompt tells: where its answers stand and how long they are; and points with that taken out."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.task_vectors.neighbours import prepared
from tv_lens.task_vectors.representations import Points, bag

_PENALTIES = np.logspace(-1, 6, 15)


def place_features(points: Points) -> Float[Tensor, "point feature"]:
    """The places and lengths of each prompt's shown answers, in increasing order, and the prompt's length.

    Place is the number of tokens before the answer in its demonstration; lengths are in tokens and in characters. Every
    feature has mean 0 and standard deviation 1, or is 0 where all prompts are alike in it.

    Example:
        >>> from torch import tensor
        >>> shown = [[(4, 1, 3), (2, 1, 5)], [(6, 1, 3), (2, 1, 5)]]
        >>> points = Points(("a", "b"), tensor([0, 1]), [[1], [1]], ["", ""], [[], []], ["", ""], shown)
        >>> place_features(points).tolist()  # the longer of the two demonstrations differs, and nothing else
        [[0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    places = points.shown_places or [[] for _ in points.rows]
    rows = [
        [*(value for kind in zip(*shown) for value in sorted(kind)), len(row)]
        for shown, row in zip(places, points.rows)
    ]
    return prepared(torch.tensor(rows, dtype=torch.float64, device="cpu"), "standardised")


def format_features(points: Points) -> Float[Tensor, "point feature"]:
    """The tokens and the characters of the shown answers, counted, with their places and lengths; standardised."""
    counts = [prepared(bag(shown), "standardised") for shown in (points.shown_tokens, points.shown_text)]
    return torch.cat([*counts, place_features(points)], dim=1)


def without_format(
    activations: Float[Tensor, "point d"],
    features: Float[Tensor, "point feature"],
    learnt: Int[Tensor, " learnt"],
    tested: Int[Tensor, " tested"],
) -> Float[Tensor, "tested d"]:
    """Activations less what a ridge map from the features predicts of them, fitted on other points.

    Args:
        activations: one row per point.
        features: of the same points.
        learnt: the points that the map is fitted on, its penalty by generalised cross-validation.
        tested: the points whose residuals are wanted.

    Source:
        Format deconfounding (arXiv 2606.02907); the features and the two halves are ours. Golub, Heath & Wahba 1979
        (Technometrics 21) for the penalty.
    """
    from sklearn.linear_model import RidgeCV

    values, shown = activations.double().numpy(), features.double().numpy()
    fitted = RidgeCV(alphas=_PENALTIES).fit(shown[learnt], values[learnt])
    predicted = fitted.predict(shown[tested]).reshape(len(tested), -1)
    return torch.from_numpy(values[tested] - predicted)
