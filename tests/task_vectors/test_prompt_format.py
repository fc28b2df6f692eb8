"""What the format explains of points, against a brute-force search for the penalty and on points made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tv_lens.site import Site
from tv_lens.task_vectors.decodability_result import FORMATS, PLACES, WITHOUT_NETWORK
from tv_lens.task_vectors.decodability_votes import VoteRule, layer_votes, votes_of
from tv_lens.task_vectors.prompt_format import _PENALTIES, format_features, place_features, without_format
from tv_lens.task_vectors.representations import Points, classes_of, draw
from tv_lens.tasks import Task, Template

SITE, ENTRY = Site("resid_post", 0), Site("resid_pre", 0)
N = 40


def points_of(tokens: list[list[int]], places: list[list[tuple[int, int, int]]], n_classes: int = 2) -> Points:
    n = len(tokens) // n_classes
    return Points(
        tuple("abcdef"[:n_classes]),
        torch.arange(n_classes).repeat_interleave(n),
        [[0]] * len(tokens),
        [""] * len(tokens),
        tokens,
        [""] * len(tokens),
        places,
    )


def _ridge(shown: np.ndarray, values: np.ndarray, asked: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge regression with an intercept that is not penalised, by its normal equations."""
    mean, height = shown.mean(axis=0), values.mean(axis=0)
    x = shown - mean
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (values - height))
    return (asked - mean) @ weights + height


def test_residuals_are_those_of_the_penalty_that_leaves_least_error_one_point_at_a_time():
    random = np.random.default_rng(0)
    shown = random.standard_normal((24, 3))
    values = shown @ random.standard_normal((3, 5)) + random.standard_normal((24, 5))
    learnt, tested = torch.arange(16), torch.arange(16, 24)
    own = shown[:16], values[:16]

    def error(penalty: float) -> float:
        rest = [np.arange(16) != i for i in range(16)]
        return sum(
            float(((_ridge(own[0][keep], own[1][keep], own[0][~keep], penalty) - own[1][~keep]) ** 2).sum())
            for keep in rest
        )

    best = min(_PENALTIES, key=error)
    found = without_format(torch.from_numpy(values), torch.from_numpy(shown), learnt, tested)
    np.testing.assert_allclose(found.numpy(), values[16:] - _ridge(*own, shown[16:], best), atol=1e-8)


def test_what_format_explains_is_gone_and_what_it_does_not_stays():
    """One class of signal is the shown token itself, the other is nowhere in the prompt's format."""
    random = np.random.default_rng(1)
    token = np.arange(2).repeat(N)
    points = points_of([[int(one)] for one in token], [[(2, 1, 1)]] * (2 * N))
    noise = torch.from_numpy(random.standard_normal((2 * N, 6)) * 0.3)
    by_token, hidden = noise.clone(), noise.clone()
    by_token[:, 0] += torch.from_numpy(8.0 * token)
    hidden[:, 0] += torch.from_numpy(8.0 * token)
    rule = VoteRule(k=5, distance="euclidean", seed=0)
    told = votes_of({SITE: by_token, ENTRY: noise}, [SITE], ENTRY, points, rule)
    unseen = votes_of(
        {SITE: hidden, ENTRY: noise}, [SITE], ENTRY, points_of([[0]] * (2 * N), [[(2, 1, 1)]] * (2 * N)), rule
    )
    kept, out = dict(zip(FORMATS, told.formats[:, 0].unbind(1))).values()
    assert float(kept.mean()) == 1 and float(out.mean()) < 0.75
    assert float(unseen.formats[:, 0].mean()) == 1  # with a format that is the same everywhere, nothing is taken out


def test_half_of_the_prompts_votes_within_itself():
    """Points of the first half lie by class, those of the second do not; no point votes across."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(2 * N, 4, generator=random)
    values[:N:2] += 50
    rule = VoteRule(k=5, distance="euclidean", seed=0)
    points = points_of([[0]] * (2 * N), [[(2, 1, 1)]] * (2 * N))
    kept = votes_of({SITE: values, ENTRY: values}, [SITE], ENTRY, points, rule).formats[:, 0, 0]
    assert (kept[::2] == 1).all() and float(kept[1::2].mean()) < 0.75
    spread = votes_of({SITE: values, ENTRY: values}, [SITE], ENTRY, points, rule).formats_spread[:, 0, 0]
    torch.testing.assert_close(spread.mean(0), kept.mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_prompts_have_votes_and_no_limits(n):
    values = torch.randn(2 * n, 3, generator=torch.Generator().manual_seed(n))
    points = points_of([[i] for i in range(2 * n)], [[(1, 1, 1)]] * (2 * n))
    votes = votes_of({SITE: values, ENTRY: values}, [SITE], ENTRY, points, VoteRule(1, "cosine", 0))
    assert not torch.isnan(votes.formats).any() and torch.isnan(votes.formats_spread).any()


def test_places_alone_name_a_task_whose_answers_come_late():
    """Answers of the second class stand two tokens later; tokens are the same."""
    places = [[(2, 1, 1)]] * N + [[(4, 1, 1)]] * N
    points = points_of([[0]] * (2 * N), places)
    noise = torch.zeros(2 * N, 2)
    votes = votes_of({SITE: noise, ENTRY: noise}, [SITE], ENTRY, points, VoteRule(5, "euclidean", 0))
    shares = dict(zip(WITHOUT_NETWORK, votes.controls.mean(dim=(0, 2)).tolist()))
    assert shares[PLACES] == 1 and all(share < 0.8 for name, share in shares.items() if name != PLACES)


def test_places_of_drawn_prompts_are_those_of_their_demonstrations():
    import tiny_characters

    template = Template("characters", demo="{x}>", answer="{y}", between=";")
    tasks = [Task(name, [("a" * (1 + i % 3) + x, y) for i, x in enumerate("bcdefghijklm")], template=template)
             for name, y in (("short", "1"), ("long", "23"))]  # fmt: skip
    classes, _ = classes_of(tasks, null=False)
    points = draw(tiny_characters.model("llama"), classes, shots=2, n=5)
    for text, places in zip(points.texts, points.shown_places):
        shown = [part.split(">") for part in text.split(";")[:2]]
        assert places == [(len(x) + 1, len(y), len(y)) for x, y in shown]
    features = place_features(points)
    assert features.shape == (10, 7) and format_features(points).shape[1] > 7
    torch.testing.assert_close(features.mean(0), torch.zeros(7, dtype=torch.float64), atol=1e-9, rtol=0)


def test_layer_votes_are_the_hits_of_the_whole_vote():
    values = torch.randn(2 * N, 4, generator=torch.Generator().manual_seed(2))
    points = points_of([[0]] * (2 * N), [])
    rule = VoteRule(5, "euclidean", 0)
    whole, alone = (
        votes_of({SITE: values, ENTRY: values}, [SITE], ENTRY, points, rule),
        layer_votes({SITE: values}, [SITE], points, rule),
    )
    assert torch.equal(whole.hits, alone.hits) and torch.equal(whole.spread, alone.spread)
