"""A network of the laboratory as a `HookedModel`: every verb treats it like a language model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GPT2LMHeadModel

from tv_lens.batch import TokenBatch
from tv_lens.errors import ShapeMismatch, unknown
from tv_lens.kinds import checks_methods
from tv_lens.lab.families import Episodes, Family
from tv_lens.lab.network import NetworkConfig, VectorTable, build_network
from tv_lens.lab.vector_tokenizer import VectorTokenizer
from tv_lens.loading.fingerprint import fingerprint
from tv_lens.model.bridging import bridge_of
from tv_lens.model.capture import bytes_per_prompt, prompts_per_batch
from tv_lens.model.hooked_model import GIB, HookedModel
from tv_lens.model.untrained import untrained
from tv_lens.storage import envelope, old_files
from tv_lens.storage.configuration import digest

ENDS = ("x", "y")
KIND = envelope.Kind("regressor", "regressor.save(path)")
_NAME, _OLD = "network.safetensors", "config.json"  # in a folder: today's file, and one of two before the envelope


@checks_methods
class Regressor(HookedModel):
    """A network that predicts y_i from the examples before it and x_i, with its registry.

    Its vocabulary consists of vectors: `encode` enters the vectors of episodes into a table and returns token ids, as
    all other methods and verbs take them. Its only logit is the prediction of the next y, so `d_vocab` is 1.

    Args:
        network: a network from `build_network`; it is consumed, like every Hugging Face model that is bridged.
        config: its sizes.
        family: the family that it was trained on, if known.
        step: the step of training after which its weights were saved, if known.
        name: its name in figures and files.
        memory_budget: bytes that one pass may take.

    Example:
        >>> from tv_lens.lab.families import SparseMixture
        >>> family = SparseMixture.disjoint(2, rank=1, points=5)
        >>> config = NetworkConfig(dim=2, points=5, n_layers=2, n_heads=2, d_model=16)
        >>> regressor, episodes = Regressor(build_network(config), config), family.sample(3)
        >>> regressor.predict(episodes.x, episodes.y).shape, regressor.residual_stream(regressor.encode(episodes)).shape
        (torch.Size([3, 5]), torch.Size([2, 3, 9, 16]))
    """

    def __init__(
        self,
        network: GPT2LMHeadModel,
        config: NetworkConfig,
        *,
        family: Family | None = None,
        step: int | None = None,
        name: str = "regressor",
        memory_budget: int = GIB,
    ):
        network.eval()
        self.config, self.family, self.step = config, family, step
        self._table: VectorTable = network.transformer.wte
        # The weights by the names that they have before bridging.
        self._weights = {key: value.detach() for key, value in network.state_dict().items()}
        self._entered: dict[str, int] = {}
        mark = fingerprint(network)  # before TransformerLens splits the joint queries, keys and values
        super().__init__(bridge_of(network, name), VectorTokenizer(self._table), name, mark, memory_budget)

    @property
    def n_ids(self) -> int:
        return len(self._table.vectors)

    @property
    def prepends_bos(self) -> bool:
        return False

    def __repr__(self) -> str:
        s, at = self.shape, "" if self.step is None else f" after {self.step} steps"
        trained = "" if self.family is None else f" on a {self.family.kind} of {self.family.n_tasks} latent tasks{at}"
        return (
            f"Regressor {self.name}: {self.config.dim} coordinates, up to {self.config.points} examples{trained}\n"
            f"  {s.n_layers} layers, {s.n_heads} heads, d_model {s.d_model}; "
            f"{self.config.n_parameters / 1e6:.2f}M parameters on {self.device}; fingerprint {self.fingerprint}"
        )

    # ---- episodes as tokens -------------------------------------------------------------------------------------

    def encode(self, episodes: Episodes, ends: str = "x") -> TokenBatch:
        """Token ids of episodes, x_1, y_1, ..., x_K; the same episodes always get the same ids.

        Args:
            episodes: any number of them.
            ends: "x" ends with the last input, whose answer is predicted; "y" with the last answer.
        """
        if ends not in ENDS:
            raise unknown("end of an episode", ends, ENDS)
        vectors = self._vectors(episodes.x, episodes.y)
        key = hashlib.sha256(vectors.numpy().tobytes() + str(tuple(vectors.shape)).encode()).hexdigest()
        with self.registry.lock.turn("regressor.encode"):
            if key not in self._entered:
                self._entered[key] = self._table.enter(vectors.flatten(0, 1))
        ids = _numbered(self._entered[key], vectors)
        return _whole(ids if ends == "y" else ids[:, :-1])

    def vectors_of(self, batch: TokenBatch) -> Float[Tensor, "batch pos width"]:
        """The vector at each token."""
        return self._table.vectors[batch.ids.to(self._table.vectors.device)].cpu()

    def predict(
        self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"], memory_budget: int | None = None
    ) -> Float[Tensor, "n K"]:
        """The prediction of every y_i from the examples before it and x_i, under the interventions that are attached.

        Args:
            x: inputs.
            y: answers; the last one has no effect.
            memory_budget: bytes one pass may take; the model's if None.
        """
        vectors = self._vectors(x, y)[:, :-1]
        width, points = vectors.shape[1], x.shape[1]
        per_prompt = bytes_per_prompt(self.shape, width, points, self.dtype.itemsize)
        size = prompts_per_batch(memory_budget or self.memory_budget, per_prompt, f"{width} tokens")
        x_columns = torch.arange(0, width, 2, device="cpu")
        predictions = []
        for part in vectors.split(max(1, min(size, 16384 // width))):
            with self._lent(part) as batch:
                out, _ = self.forward(batch, logits_at=x_columns.expand(len(part), -1), who="regressor.predict")
            predictions.append(out[..., 0].cpu())
        return torch.cat(predictions)

    @contextmanager
    def _lent(self, vectors: Float[Tensor, "n pos width"]) -> Iterator[TokenBatch]:
        """Tokens for vectors that are in the table for one pass only."""
        with self.registry.lock.turn("regressor.predict", passes=True):
            first = self._table.enter(vectors.flatten(0, 1))
            try:
                yield self.tokens(_whole(_numbered(first, vectors)))
            finally:
                self._table.shorten(first)

    def _vectors(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n pos width"]:
        if x.ndim != 3 or x.shape[2] != self.config.dim:
            raise ShapeMismatch(
                "The inputs do not fit the network.", got=f"x {list(x.shape)}", allowed=f"[n, K, {self.config.dim}]"
            )
        return self._table.interleaved(x.float().cpu(), y.float().cpu()).contiguous()

    # ---- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the weights and their description to one safetensors file, whole or not at all; returns its path.

        Args:
            path: the file; in a folder that exists, it is called network.safetensors.
        """
        path = Path(path)
        labels = {
            "network": self.config.to_json(),
            "step": self.step,
            "name": self.name,
            "family": None if self.family is None else self.family.to_json(),
        }
        origin = digest({"network": labels["network"], "family": labels["family"]})
        return envelope.write(path / _NAME if path.is_dir() else path, KIND, self._weights, labels, origin)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device | None = None) -> Regressor:
        """The regressor that `save` wrote.

        Args:
            path: the file, or the folder that it lies in.
            device: a GPU if there is one.

        Raises:
            FormatError: there is no regressor, or it is damaged.
            MissingFile: there is no such file.
        """
        with _saved(Path(path)) as (about, weights):
            family = None if about["family"] is None else Family.from_json(about["family"])
            config = NetworkConfig(**about["network"])
            return cls.of(weights, config, family=family, step=about["step"], name=about["name"], device=device)

    @classmethod
    def of(
        cls,
        weights: dict[str, Tensor],
        config: NetworkConfig,
        *,
        family: Family | None = None,
        step: int | None = None,
        name: str = "regressor",
        device: str | torch.device | None = None,
        memory_budget: int = GIB,
    ) -> Regressor:
        """A regressor with these weights (float32, whatever they were saved in).

        Raises:
            ShapeMismatch: the config describes a larger network; said before it takes memory.
        """
        given = sum(value.numel() for value in weights.values())
        if config.n_parameters > 2 * given:
            got, allowed = f"{given:,} numbers", f"{config.n_parameters:,}"
            raise ShapeMismatch("The weights are not those of this network.", got=got, allowed=allowed)
        network = build_network(config, attention="eager")
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(network.to(device), config, family=family, step=step, name=name, memory_budget=memory_budget)


@contextmanager
def _saved(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """The description and the weights of a file that `save` wrote, or of a folder that an earlier version wrote."""
    if (path / _OLD).is_file() and not (path / _NAME).exists():
        with old_files.reading(path, KIND):
            about = json.loads((path / _OLD).read_text(encoding="utf-8"))
            if about["format"] != "tv_lens.regressor":
                raise ValueError(f"format {about['format']!r}")
            yield about, old_files.tensors(path / "weights.safetensors")[0]
    else:
        with envelope.opened(path / _NAME if path.is_dir() else path, KIND) as file:
            yield file.labels, dict(file)


def _numbered(first: int, vectors: Float[Tensor, "n pos width"]) -> Tensor:
    n, width = vectors.shape[:2]
    return torch.arange(first, first + n * width, device="cpu").view(n, width)


def _whole(ids: Tensor) -> TokenBatch:
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


@untrained.register
def untrained_regressor(model: Regressor, seed: int = 0) -> Regressor:
    """A network of the same sizes as a training would begin with; it reads the same ids."""
    network: Any = build_network(model.config, seed, "eager")
    made = Regressor(
        network.to(model.device), model.config, family=model.family, step=0, name=f"{model.name}, untrained"
    )
    made._table.vectors = model._table.vectors
    return made
