"""Training steps per second: `tv_lens.lab` against the plain loop of Hugging Face's GPT-2, same sizes and data.

    python benchmarks/training.py                 # the `small` preset: 4 layers, d_model 64, batch 64
    python benchmarks/training.py --batch 128

The plain loop is what one writes at first: `GPT2Model` as it comes (its `gelu_new`, its attention), `inputs_embeds`,
`torch.optim.Adam`, the mean squared error at the x-tokens. Ours is `tv_lens.lab.training`'s own step, drawing,
clipping, finiteness check and running losses included, with Adam and then with the preset's SOAP. Steps of the loops
take turns in one process, so that a busy machine slows all alike, and the ratio is of medians of processor time. The
share of matrix products is that of `aten::mm`, `addmm`, `bmm` and fused attention in the profiler's own time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2Model

from tv_lens.lab import TrainingConfig, preset
from tv_lens.lab.network import interleaved
from tv_lens.lab.training import _Trainer

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product")


def plain_loop(config: TrainingConfig) -> Callable[[], None]:
    """One step of the loop without this library's care, each time it is called."""
    sizes = config.network
    body = GPT2Model(
        GPT2Config(
            vocab_size=1,
            n_positions=2 * sizes.points,
            n_embd=sizes.d_model,
            n_layer=sizes.n_layers,
            n_head=sizes.n_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    read_in, read_out = torch.nn.Linear(sizes.width, sizes.d_model), torch.nn.Linear(sizes.d_model, 1)
    modules = torch.nn.ModuleList([body, read_in, read_out]).train()
    optimizer = torch.optim.Adam(modules.parameters(), lr=config.lr)
    steps = iter(range(10**9))

    def step() -> None:
        drawn = config.family.sample(config.batch, (0, next(steps)))
        out = body(inputs_embeds=read_in(interleaved(drawn.x, drawn.y, sizes.width, sizes.answer_at))).last_hidden_state
        loss = (read_out(out)[:, ::2, 0] - drawn.y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def own_loop(config: TrainingConfig) -> Callable[[], None]:
    return _Trainer(config, torch.device("cpu")).advance


def share_of_products(step: Callable[[], None]) -> float:
    """The part of a step's time that is spent in matrix products."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            step()
    events = seen.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    return sum(event.self_cpu_time_total for event in events if event.key.startswith(PRODUCTS)) / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each loop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = preset(options.preset, **({} if options.batch is None else {"batch": options.batch}))
    adam = TrainingConfig.from_json({**config.to_json(), "optimizer": "adam"})
    loops = {
        "Hugging Face, plain": plain_loop(config),
        "tv_lens, Adam": own_loop(adam),
        f"tv_lens, {config.optimizer}": own_loop(config),
    }
    for step in loops.values():
        for _ in range(3):
            step()
    spent: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.steps):
        for name, step in loops.items():
            begun = time.process_time()
            step()
            spent[name].append(time.process_time() - begun)
    peer = statistics.median(spent["Hugging Face, plain"])
    print(
        f"{options.preset}: batch {config.batch}, {config.network.n_parameters:,} parameters, one thread, "
        f"{options.steps} steps each"
    )
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(
            f"  {name:<22}{1 / middle:6.1f} steps/s  {1000 * middle:6.1f} ms  {peer / middle:5.2f} x  "
            f"{share_of_products(loops[name]):4.0%} in matrix products"
        )


if __name__ == "__main__":
    main()
