"""The network of the laboratory: a GPT-2 body that reads vectors and writes one number.

An episode enters as x_1, y_1, x_2, y_2, ..., each a vector: x in `dim` coordinates, y in one of its own (or in the
first of x's, as in Garg et al. 2022), zeros elsewhere. A linear map reads the vectors in, another reads the prediction
of y_i out after x_i. In between is the unchanged body of `transformers`' GPT-2, so that TransformerLens bridges it like
any other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from tv_lens.errors import InvalidArgument, ShapeMismatch, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.lab.families import generator_of
from tv_lens.torch_settings import plain_settings

ANSWERS = ("apart", "first")
N_TRIAL_VECTORS = 64  # ids that exist before any episode is entered; the registry tries its hooks on them


@checks_kinds
@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The sizes of a network.

    Args:
        dim: D, the coordinates of x.
        points: K, the most examples of an episode.
        n_layers: blocks.
        n_heads: attention heads of a block.
        d_model: width of the residual stream; the MLP is four times as wide.
        init: standard deviation of the weights at the beginning. GPT-2's 0.02 is meant for d_model 768; with d_model 64
            and 0.02, a network stays on the plateau of predicting zero for thousands of steps.
        activation: the function of the MLP, as `transformers` names it. "gelu_pytorch_tanh" is GPT-2's own, "gelu" the
            exact one, which differs by less than 0.001 and takes a third of the time on a CPU.
        answers: the place of y in its vector: "apart", in a coordinate of its own; "first", in x's first one.

    Example:
        >>> NetworkConfig(dim=2, points=4).d_model
        64
    """

    dim: int
    points: int
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 64
    init: float = 0.1
    activation: str = "gelu"
    answers: str = "apart"

    def __post_init__(self) -> None:
        for name in ("dim", "points", "n_layers", "n_heads", "d_model"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"The network's {name} must be at least 1.", got=f"{name}={getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise InvalidArgument(
                "The heads do not divide the width.",
                got=f"d_model={self.d_model}, n_heads={self.n_heads}",
                allowed="a width that is a multiple of the number of heads",
            )
        if self.answers not in ANSWERS:
            raise unknown("place of answers", self.answers, ANSWERS)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def width(self) -> int:
        """Coordinates of a vector that the network reads."""
        return self.dim + (self.answers == "apart")

    @property
    def answer_at(self) -> int:
        """The coordinate of y."""
        return self.dim if self.answers == "apart" else 0

    @property
    def n_parameters(self) -> int:
        """Weights and biases, counted without building the network."""
        d, context = self.d_model, 2 * self.points
        block = 12 * d * d + 13 * d
        return (self.width + 1) * d + context * d + self.n_layers * block + 2 * d + d + 1


class VectorTable(nn.Module):
    """The embedding of a network that reads vectors: a token id is the number of a vector in a table.

    The rest of the library refers to a model's inputs by token ids. A vector is therefore entered into the table once
    and keeps its number for as long as the table exists.
    """

    vectors: Tensor

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.dim, self.answer_at = config.dim, config.answer_at
        self.read_in = nn.Linear(config.width, config.d_model, dtype=torch.float32, device="cpu")
        trial = torch.randn(
            N_TRIAL_VECTORS, config.width, generator=generator_of(0, 0x7AB1E), dtype=torch.float32, device="cpu"
        )
        self.register_buffer("vectors", trial, persistent=False)

    def forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return self.read_in(self.vectors[ids].to(self.read_in.weight.dtype))

    @property
    def weight(self) -> Float[Tensor, "id d_model"]:
        """The embedding of every id, as TransformerLens looks for it (`W_E`)."""
        return self.read_in(self.vectors.to(self.read_in.weight.dtype))

    def interleaved(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n pos width"]:
        """x_1, y_1, x_2, ..., y_K as the vectors that this table reads."""
        return interleaved(x, y, self.read_in.in_features, self.answer_at)

    def enter(self, vectors: Float[Tensor, "n width"]) -> int:
        """The number of the first of these vectors, now in the table."""
        first = len(self.vectors)
        self.vectors = torch.cat([self.vectors, vectors.to(self.vectors)])
        return first

    def shorten(self, length: int) -> None:
        """Removes every vector from this number on."""
        self.vectors = self.vectors[:length]


@checks_kinds
def build_network(config: NetworkConfig, seed: int = 0, attention: str = "sdpa") -> GPT2LMHeadModel:
    """A network with weights drawn from the seed; the global random state stays as it was.

    Args:
        config: the sizes.
        seed: fixes the weights.
        attention: "sdpa" to train fast, "eager" to be bridged (its patterns can then be read and written).

    Example:
        >>> network = build_network(NetworkConfig(dim=2, points=4, n_layers=1, n_heads=2, d_model=8))
        >>> network.config.n_layer
        1
    """
    body = GPT2Config(
        vocab_size=1,
        n_positions=2 * config.points,
        n_embd=config.d_model,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        activation_function=config.activation,
        initializer_range=config.init,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    with torch.random.fork_rng(devices=[]), plain_settings():
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator_of(seed, 0x5EED), device="cpu")))
        network = GPT2LMHeadModel(body)
        network.transformer.wte = VectorTable(config)
        network.lm_head = nn.Linear(config.d_model, 1, dtype=torch.float32, device="cpu")
        for linear in (network.transformer.wte.read_in, network.lm_head):
            nn.init.normal_(linear.weight, std=config.init)
            nn.init.zeros_(linear.bias)
    return network


def interleaved(
    x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"], width: int, answer_at: int
) -> Float[Tensor, "n pos width"]:
    """x_1, y_1, x_2, ..., y_K as vectors of `width` coordinates; y stands in coordinate `answer_at`.

    Example:
        >>> interleaved(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[5.0, 6.0]]), 3, 2).tolist()
        [[[1.0, 2.0, 0.0], [0.0, 0.0, 5.0], [3.0, 4.0, 0.0], [0.0, 0.0, 6.0]]]
    """
    if x.shape[:2] != y.shape:
        raise ShapeMismatch("Every input needs one answer.", got=f"x {list(x.shape)}, y {list(y.shape)}")
    out = x.new_zeros(len(x), x.shape[1], 2, width)
    out[:, :, 0, : x.shape[2]] = x
    out[:, :, 1, answer_at] = y
    return out.flatten(1, 2)


def predictions(network: GPT2LMHeadModel, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
    """The network's prediction of each y_i, from the examples before it and x_i; with gradients if they are enabled."""
    table: VectorTable = network.transformer.wte
    vectors = table.interleaved(x, y)[:, :-1]  # nothing is predicted after the last answer
    out = network.transformer(inputs_embeds=table.read_in(vectors)).last_hidden_state
    return network.lm_head(out[:, ::2])[..., 0]
