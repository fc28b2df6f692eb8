"""What `emergence` measures at one checkpoint, and the episodes that are the same at every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.lab.family import Episodes, Family
from tv_lens.lab.posterior_probe import PosteriorProbe, kl_divergence
from tv_lens.lab.predictive import Predictive
from tv_lens.lab.reference_predictors import Posterior, references
from tv_lens.lab.regressor import Regressor
from tv_lens.site import Site
from tv_lens.task_vectors.half_votes import contributions
from tv_lens.task_vectors.neighbours import neighbours, prepared, vote

TOKENS = ("x", "y")
CONTROLS = ("token", "answers")
_HELD_OUT, _PROBE = 0xE3E, 0x7A1  # streams of episodes that no training run and no other experiment draws


@dataclass(frozen=True, eq=False)
class CheckpointEpisodes:
    """The episodes, the references and the true posteriors: the same at every checkpoint.

    Args:
        family: what the episodes are drawn from.
        held_out: `n` episodes of each latent task, task after task; everything is scored on them.
        probe: the episodes that probes and projections are fitted on.
        shots: after how many examples representations are read.
        k: neighbours that vote.
        n_label_shuffles: how often labels are shuffled for the band of chance.
        map_points: points per task on the maps.
        seed: of every draw.
        predictions: those of each reference predictor, by its name.
        posterior: over tasks, of the held-out and of the probe's episodes after each of `shots`; None where it is not
            known.
        predictive: the distribution of every held-out answer; None where it is not known.
    """

    family: Family
    held_out: Episodes
    probe: Episodes
    shots: tuple[int, ...]
    k: int
    n_label_shuffles: int
    map_points: int
    seed: int
    predictions: dict[str, Float[Tensor, "point K"]]
    posterior: tuple[Float[Tensor, "point shots task"], Float[Tensor, "probe shots task"]] | None
    predictive: Predictive | None

    @classmethod
    def of(
        cls,
        family: Family,
        *,
        n: int,
        probe_episodes: int,
        shots: int,
        k: int,
        n_label_shuffles: int,
        map_points: int,
        seed: int,
    ) -> CheckpointEpisodes:
        """The episodes of a family.

        Args:
            family: with two latent tasks or more.
            n: held-out episodes per task.
            probe_episodes: episodes per task for probes and projections.
            shots: at how many context lengths representations are read; the last is K - 1.
            k: neighbours that vote.
            n_label_shuffles: how often labels are shuffled for the band of chance.
            map_points: points per task on the maps.
            seed: of every draw.
        """
        if family.n_tasks < 2 or family.points < 3:
            raise InvalidArgument(
                "Emergence is of several latent tasks, over several examples.",
                got=f"{family.n_tasks} latent tasks, {family.points} examples",
                allowed="2 or more, 3 or more",
            )
        if not 1 <= k < n:
            raise InvalidArgument(
                "A task's own points must be able to fill the neighbourhood.",
                got=f"k={k}, n={n}",
                allowed="k from 1 to n - 1",
            )
        held_out = family.sample_each(n, (seed, _HELD_OUT))
        probe = family.sample_each(probe_episodes, (seed, _PROBE))
        places = np.linspace(0, family.points - 1, min(shots, family.points - 1) + 1)[1:].round().astype(int)
        predictors = references(held_out, family)
        best = next((one for one in predictors.values() if isinstance(one, Posterior)), None)
        posterior = predictive = None
        if best is not None:
            posterior = tuple(best.posterior(one.x, one.y)[:, places.tolist()] for one in (held_out, probe))
            predictive = Predictive.of(best, held_out)
        return cls(
            family,
            held_out,
            probe,
            tuple(places.tolist()),
            k,
            n_label_shuffles,
            min(map_points, n),
            seed,
            {name: one.predict(held_out.x, held_out.y) for name, one in predictors.items()},
            posterior,
            predictive,
        )

    @property
    def groups(self) -> Int[Tensor, " task"]:
        """The group of each latent task."""
        return torch.tensor(self.family.groups, dtype=torch.long, device="cpu")

    @property
    def grouped(self) -> bool:
        """Whether there are several groups, at least one of which has several tasks."""
        return 1 < len(set(self.family.groups)) < self.family.n_tasks

    def by_task(self, values: Tensor) -> np.ndarray:
        """Points, the first axis, as `example ... task`."""
        return np.moveaxis(values.numpy().reshape(self.family.n_tasks, -1, *values.shape[1:]), 0, -1)

    def ceilings(self) -> Float[np.ndarray, "example level shots task"] | None:
        """1 where the true posterior is largest for the right task, the right group, or the right task of its group."""
        if self.posterior is None:
            return None
        posterior, labels, groups = self.posterior[0], self.held_out.task, self.groups
        hits = [posterior.argmax(-1) == labels[:, None]]
        if self.grouped:
            by_group = torch.zeros(*posterior.shape[:2], int(groups.max()) + 1, dtype=posterior.dtype, device="cpu")
            by_group.index_add_(-1, groups, posterior)
            hits.append(by_group.argmax(-1) == groups[labels][:, None])
            own = groups[None, :] == groups[labels][:, None]
            hits.append(posterior.masked_fill(~own[:, None], -1.0).argmax(-1) == labels[:, None])
        return np.stack([self.by_task(one).astype(np.float32) for one in hits], axis=1)

    def controls(self) -> Float[np.ndarray, "example control token task"]:
        """Decodability without the network after K - 1 examples: from the vector at the token, and from the answers.

        The answers are sorted: whichever examples they belong to, they show how large answers are and how they spread.
        """
        return self.voted_controls()[0]

    def voted_controls(self) -> tuple[np.ndarray, np.ndarray]:
        """The hits of `controls`, and the contributions to their shares (see `voted`)."""
        held_out, last = self.held_out, self.shots[-1]
        answers = held_out.y[:, :last].sort(dim=1).values
        features = {
            ("token", "x"): held_out.x[:, last],
            ("token", "y"): held_out.y[:, last - 1 : last],
            ("answers", "x"): answers,
            ("answers", "y"): answers,
        }

        shares = np.array(
            [
                [self.voted(prepared(features[control, token]), held_out.task) for token in TOKENS]
                for control in CONTROLS
            ],
            np.float32,
        )  # control token part example task
        return np.moveaxis(shares[:, :, 0], 2, 0), np.moveaxis(shares[:, :, 1], 2, 0)

    def voted(
        self, points: Float[Tensor, "point d"], labels: Int[Tensor, " point"]
    ) -> tuple[Bool[np.ndarray, "example task"], Float[np.ndarray, "example task"]]:
        """Whether the neighbours name the labels, and the contributions to each task's share: `half_votes`.

        Args:
            points: as `neighbours.prepared` returns them, `n` of each of some tasks.
            labels: what is voted on, such as tasks or groups.
        """
        votes = vote(labels, *neighbours(points, self.k, self.seed), self.seed)
        hits = (votes == labels).view(-1, self.n).T.numpy()
        return hits, contributions(points, labels, hits, k=self.k, seed=self.seed).astype(np.float32)

    @property
    def n(self) -> int:
        """Held-out episodes per latent task."""
        return len(self.held_out.task) // self.family.n_tasks


def measured(regressor: Regressor, episodes: CheckpointEpisodes) -> dict[str, np.ndarray]:
    """All measurements at one checkpoint, as arrays by name.

    `prediction` is `example shots task`; `td`, `td_group`, `td_within`, the `_spread` of each of these three,
    `separability`, `readout_nats`, `readout_error` and `readout_size` are `example shots token layer task`; `td_chance`
    is `shuffle token layer task`; `points` is `point token layer d`, the points of the maps after K - 1 examples, and
    `means` is `token layer task d`, the means over the probe's episodes.
    """
    held_out = _read(regressor, episodes.held_out, episodes.shots)
    probe = _read(regressor, episodes.probe, episodes.shots)
    shape = held_out.shape[1:4]  # shots token layer
    by_place: dict[str, list[np.ndarray]] = {}
    for place in np.ndindex(*shape):
        points = held_out[(slice(None), *place)]
        for name, values in _of_points(points, episodes, last=place[0] == shape[0] - 1).items():
            by_place.setdefault(name, []).append(values)
        if episodes.posterior is not None:
            for name, values in _read_out(points, probe[(slice(None), *place)], place[0], episodes).items():
                by_place.setdefault(name, []).append(values)
    arrays = {name: _folded(values, shape[1:] if name == "td_chance" else shape) for name, values in by_place.items()}
    arrays["prediction"] = episodes.by_task(regressor.predict(episodes.held_out.x, episodes.held_out.y).double())
    on_maps = episodes.by_task(held_out[:, -1])[: episodes.map_points]  # example token layer d task
    arrays["points"] = np.moveaxis(on_maps, -1, 0).reshape(-1, *on_maps.shape[1:-1])
    sums = torch.zeros(episodes.family.n_tasks, *probe.shape[2:], dtype=torch.float32, device="cpu").index_add_(
        0, episodes.probe.task, probe[:, -1]
    )
    arrays["means"] = (sums * episodes.family.n_tasks / len(probe)).permute(1, 2, 0, 3).numpy()
    return arrays


def _read(regressor: Regressor, episodes: Episodes, shots: Sequence[int]) -> Float[Tensor, "point shots token layer d"]:
    """The residual stream at the x-token after so many examples, and at the y-token that is the last of them."""
    sites = [Site("resid_post", layer) for layer in range(regressor.n_layers)]
    positions = [at for count in shots for at in (2 * count, 2 * count - 1)]  # in the order of TOKENS
    captured = regressor.capture(regressor.encode(episodes), sites, pos=positions)
    stream = torch.stack([captured[site] for site in captured], dim=2)  # point position layer d
    return stream.unflatten(1, (len(shots), len(TOKENS)))


def _of_points(points: Float[Tensor, "point d"], episodes: CheckpointEpisodes, last: bool) -> dict[str, np.ndarray]:
    """Decodability, its band of chance and the silhouettes at one place."""
    labels, placed = episodes.held_out.task, prepared(points)
    arrays = {"separability": episodes.by_task(silhouettes(placed, labels))}
    arrays["td"], arrays["td_spread"] = episodes.voted(placed, labels)
    if last:
        index, far = neighbours(placed, episodes.k, episodes.seed)
        arrays["td_chance"] = _shuffled_shares(labels, index, far, episodes)
    if episodes.grouped:
        groups = episodes.groups[labels]
        arrays["td_group"], arrays["td_group_spread"] = episodes.voted(placed, groups)
        within, spread = np.zeros_like(arrays["td"]), np.zeros_like(arrays["td_spread"])
        for group in groups.unique():
            mine, tasks = (groups == group).nonzero().flatten(), (episodes.groups == group).numpy()
            within[:, tasks], spread[:, tasks] = episodes.voted(prepared(points[mine]), labels[mine])
        arrays["td_within"], arrays["td_within_spread"] = within, spread
    return arrays


def _shuffled_shares(
    labels: Tensor, index: Tensor, far: Tensor, episodes: CheckpointEpisodes
) -> Float[np.ndarray, "shuffle task"]:
    """The share of hits of each class when labels are shuffled; all shuffles take part in one vote, side by side."""
    random = np.random.default_rng([episodes.seed, 2])
    n, n_tasks, n_shuffles = len(labels), episodes.family.n_tasks, episodes.n_label_shuffles
    shuffled = torch.stack([labels[torch.from_numpy(random.permutation(n))] for _ in range(n_shuffles)])
    offset = torch.arange(n_shuffles, device="cpu")[:, None, None] * n + index[None]
    votes = vote(shuffled.flatten(), offset.flatten(0, 1), far.repeat(n_shuffles, 1), episodes.seed)
    hits = (votes.view(n_shuffles, n) == shuffled).double()
    sums = torch.zeros(n_shuffles, n_tasks, dtype=torch.float64, device="cpu").scatter_add_(1, shuffled, hits)
    return (sums * n_tasks / n).numpy()


def silhouettes(points: Float[Tensor, "point d"], labels: Int[Tensor, " point"]) -> Float[Tensor, " point"]:
    """How much nearer each point is to its own class than to the nearest other one, from -1 to 1; 0 for a class of one.

    Source:
        Rousseeuw 1987 (J. Comput. Appl. Math. 20): (b - a) / max(a, b), with a the mean distance to the other points of
        the own class and b the smallest mean distance to another class.
    """
    n_classes = int(labels.max()) + 1
    member = torch.nn.functional.one_hot(labels, n_classes).double()
    sums, counts = torch.cdist(points.double(), points.double()) @ member, member.sum(0)
    rows = torch.arange(len(labels), device="cpu")
    own = sums[rows, labels] / (counts[labels] - 1).clamp(min=1)
    other = (sums / counts.clamp(min=1)).masked_fill((member > 0) | (counts == 0), torch.inf).amin(1)
    largest = torch.maximum(own, other)
    alone = (counts[labels] == 1) | (largest == 0) | ~other.isfinite()
    return torch.where(alone, 0.0, (other - own) / largest.masked_fill(alone, 1.0))


def _read_out(points: Tensor, fitted: Tensor, shots: int, episodes: CheckpointEpisodes) -> dict[str, np.ndarray]:
    """How well a linear probe, fitted on other episodes, reads the posterior."""
    truth, targets = (one[:, shots] for one in episodes.posterior)
    read = PosteriorProbe.fit(fitted, targets).log_probabilities(points)
    return {
        "readout_nats": episodes.by_task(kl_divergence(truth, read)),
        "readout_error": episodes.by_task((truth - read.exp()).square().sum(-1)),
        "readout_size": episodes.by_task((truth - targets.mean(0)).square().sum(-1)),
    }


def _folded(values: list[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """One array per place, stacked so that the axes of places come after the first axis."""
    stacked = np.stack(values, axis=1)
    return stacked.reshape(len(stacked), *shape, *stacked.shape[2:])
