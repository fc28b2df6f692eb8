"""Twins of the causal analyses of a regressor: plain PyTorch hooks on the Hugging Face network, one run a patch.

The oracles share no code with what they check but the draw of episodes: means, edits and losses are computed anew on
the network that was never bridged, with its own modules. float32 sums in another order agree to 1e-4.
"""

from __future__ import annotations

import pytest
import torch

from tv_lens.experiments import head_ablation, patch_matrix
from tv_lens.lab import Episodes, NetworkConfig, Regressor, SparseMixture, build_network, latent_tasks
from tv_lens.lab.network import predictions

FAMILY = SparseMixture.disjoint(3, rank=1, points=4)
CONFIG = NetworkConfig(dim=3, points=4, n_layers=3, n_heads=2, d_model=8, init=0.4)
TASKS, N, CONTEXTS, WIDTH = latent_tasks(FAMILY), 5, 11, 7
COLUMNS = {"x": [0, 2, 4, 6], "y": [1, 3, 5], "last": [6]}


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=3), CONFIG, family=FAMILY)


@pytest.fixture(scope="module")
def network():
    return build_network(CONFIG, seed=3).eval()


def hooked(network, episodes, module, hook, before=False):
    handle = module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            return predictions(network, episodes.x, episodes.y)
    finally:
        handle.remove()


def squared_errors(network, episodes, *hooking, **options):
    with torch.no_grad():
        plain = predictions(network, episodes.x, episodes.y)
        found = hooked(network, episodes, *hooking, **options) if hooking else plain
    errors = (found - episodes.y) ** 2
    return {"sequence": errors.mean(1), "query": errors[:, -1]}


def agree(cell, oracle):
    torch.testing.assert_close(torch.tensor(cell.values.values).float(), oracle, atol=1e-4, rtol=1e-4)


def renamed(task):
    """The first basis's episodes, told as if the coordinate that matters were this task's."""
    episodes = TASKS[0].episodes(N, 0)
    others = [c for c in range(3) if c != task.label]
    x = torch.zeros_like(episodes.x)
    for old, new in enumerate([task.label, *others]):
        x[:, :, new] = episodes.x[:, :, old]
    return Episodes(x, episodes.y, episodes.task)


def stream_means(network, layer):
    """The mean of a block's output over train episodes of each task: `task pos d_model`."""
    found = []
    for task in TASKS:
        kept = []

        def keep(module, inputs, output):
            kept.append((output[0] if isinstance(output, tuple) else output).clone())

        hooked(network, task.episodes(CONTEXTS, 0, "train"), network.transformer.h[layer], keep)
        found.append(kept[0].mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("mode", ["replace", "add", "add-difference"])
@pytest.mark.parametrize("position", list(COLUMNS))
def test_a_patch_is_a_plain_hook(regressor, network, position, mode):
    matrix = patch_matrix(regressor, pos=(position,), modes=(mode,), n=N, contexts=CONTEXTS, progress=False)
    assert matrix.axes == ("source", "target", "position", "mode", "layer", "scored") and matrix.n == N
    columns = COLUMNS[position]
    for layer in range(3):
        means = stream_means(network, layer)
        for source in range(3):
            value = means[source] - (means.mean(0) if mode == "add-difference" else 0)

            def patch(module, inputs, output):
                stream = (output[0] if isinstance(output, tuple) else output).clone()
                stream[:, columns] = value[columns] + (0 if mode == "replace" else stream[:, columns])
                return (stream, *output[1:]) if isinstance(output, tuple) else stream

            for target, task in enumerate(TASKS):
                episodes = task.episodes(N, 0)
                plain = squared_errors(network, episodes)
                patched = squared_errors(network, episodes, network.transformer.h[layer], patch)
                for scored in ("sequence", "query"):
                    cell = matrix.isel(source=source, target=target, position=0, mode=0, layer=layer)
                    agree(cell.sel(scored=scored), patched[scored] - plain[scored])
    largest = abs(matrix.values.isel(layer=0)).max()
    assert largest > 1e-3, "a patch that does nothing would agree with anything"


def test_a_head_set_to_zero_is_its_slice_of_the_output_weights_set_to_zero(regressor, network):
    ablation = head_ablation(
        regressor, how=("zero",), scored=("sequence", "query"), n=N, contexts=CONTEXTS, progress=False
    )
    for layer in range(3):
        for head in range(2):
            cut = build_network(CONFIG, seed=3).eval()
            with torch.no_grad():
                cut.transformer.h[layer].attn.c_proj.weight[head * 4 : (head + 1) * 4] = 0  # Conv1D: input x output
            for number, task in enumerate(TASKS):
                episodes = renamed(task)
                plain, without = squared_errors(network, episodes), squared_errors(cut, episodes)
                for scored in ("sequence", "query"):
                    cell = ablation.isel(task=number, layer=layer, head=head, how=0)
                    agree(cell.sel(scored=scored), without[scored] - plain[scored])
    assert abs(ablation.values).max() > 1e-2


def test_a_head_set_to_its_mean_is_a_plain_hook(regressor, network):
    ablation = head_ablation(regressor, how=("mean",), n=N, contexts=CONTEXTS, progress=False)
    for layer in range(3):
        project = network.transformer.h[layer].attn.c_proj
        kept = []

        def keep(module, inputs):
            kept.append(inputs[0].clone())

        for task in TASKS:
            hooked(network, task.episodes(CONTEXTS, 0, "train"), project, keep, before=True)
        mean = torch.cat(kept).mean(0)
        for head in range(2):

            def ablate(module, inputs):
                z = inputs[0].clone()
                z[..., head * 4 : (head + 1) * 4] = mean[:, head * 4 : (head + 1) * 4]
                return (z,)

            for number, task in enumerate(TASKS):
                episodes = renamed(task)
                plain = squared_errors(network, episodes)
                without = squared_errors(network, episodes, project, ablate, before=True)
                cell = ablation.isel(task=number, layer=layer, head=head, how=0)
                agree(cell.sel(scored="sequence"), without["sequence"] - plain["sequence"])
    assert abs(ablation.values).max() > 1e-2
