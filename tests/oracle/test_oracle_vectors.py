"""Hendel et al.'s procedure by hand: plain PyTorch hooks on the Hugging Face model, one unpadded prompt a pass.

Nothing of ours runs here but the texts of the prompts: the vector, the injected accuracies, the layer sweep and the
greedy decoding are each computed a second time.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

import tiny
import tiny_characters
from tv_lens import tasks
from tv_lens.loading import weights
from tv_lens.patching.scoring import score
from tv_lens.task_vectors.extraction import extract
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.tasks import Task

PAIRING = tiny_characters.pairings(1)[0]


class ByHand:
    """A Hugging Face model and its tokenizer, with a hook put on a block when it is needed."""

    def __init__(self, module, tokenizer):
        self.module, self.tokenizer = module, tokenizer
        body = module.get_decoder()
        self.blocks = body.h if hasattr(body, "h") else body.layers

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def logits(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.module(torch.tensor([ids]), use_cache=False).logits[0, -1].float()

    @contextmanager
    def hook(self, layer: int, function):
        handle = self.blocks[layer].register_forward_hook(function)
        try:
            yield
        finally:
            handle.remove()

    def last_states(self, text: str) -> torch.Tensor:
        """The output of every block at the last token."""
        held = {}

        def keep(layer):
            def function(block, given, out):
                held[layer] = (out if torch.is_tensor(out) else out[0])[0, -1].clone()

            return function

        handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(self.blocks)]
        self.logits(self.ids(text))
        for handle in handles:
            handle.remove()
        return torch.stack([held[layer] for layer in range(len(self.blocks))])

    def injected(self, layer: int, vector: torch.Tensor, position: int):
        """A context in which a block's output at one position is overwritten."""

        def function(block, given, out):
            stream = (out if torch.is_tensor(out) else out[0]).clone()
            stream[:, position] = vector
            return stream if torch.is_tensor(out) else (stream, *out[1:])

        return self.hook(layer, function)

    def greedy(self, text: str, n: int, layer: int, vector: torch.Tensor) -> list[int]:
        """What greedy decoding writes after the prompt, with the vector kept at the prompt's last token."""
        ids = self.ids(text)
        end = len(ids)
        with self.injected(layer, vector, end - 1):
            for _ in range(n):
                ids.append(int(self.logits(ids).argmax()))
        return ids[end:]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "opt"])
def both(request):
    """A tiny model twice: behind our hooks, and bare with the same weights."""
    bare = ByHand(tiny.hugging_face_model(request.param), tiny_characters.tokenizer())
    return tiny_characters.model(request.param), bare


def test_the_vector_is_hendels(both):
    model, bare = both
    vectors = ResidualMean(shots=4, contexts=8).at_layers(model, PAIRING)
    states = torch.stack([bare.last_states(text) for text in PAIRING.prompts(4, 8, split="train").texts])
    for layer, vector in vectors.items():
        torch.testing.assert_close(vector.direction, states[:, layer].mean(0), atol=1e-5, rtol=1e-5)


def test_each_layers_injected_accuracy_is_hendels(both):
    """Each answer is the letter that the bare model finds likeliest under layer 1's vector: some are right."""
    model, bare = both
    vectors = ResidualMean(shots=4, contexts=8).at_layers(model, PAIRING)
    logits = {}
    for layer, vector in vectors.items():
        for pair in PAIRING:
            ids = bare.ids(f"{pair.input}>")
            with bare.injected(layer, vector.direction, len(ids) - 1):
                logits[layer, pair.input] = bare.logits(ids)
    letters = torch.tensor(bare.tokenizer.convert_tokens_to_ids(list(tiny_characters.LETTERS)))
    likeliest = {pair.input: int(letters[logits[1, pair.input][letters].argmax()]) for pair in PAIRING}
    answers = [(x, bare.tokenizer.convert_ids_to_tokens(token)) for x, token in likeliest.items()]
    task = Task("own answers", answers, template=PAIRING.template)

    queries = task.queries(split="dev")
    sweep = layer_sweep(model, task, vectors, template=task.template, n=99)
    right = {}
    for layer in vectors:
        right[layer] = [float(int(logits[layer, x].argmax()) == likeliest[x]) for x in queries.inputs]
        assert sweep.values.sel(layer=layer).values.tolist() == right[layer]
    assert sum(right[1]) > 0
    assert sum(right[sweep.provenance["chosen"]]) == max(sum(hits) for hits in right.values())


def test_exact_match_is_what_greedy_decoding_writes(both):
    model, bare = both
    vector = extract(model, PAIRING, method=ResidualMean(layer=1, shots=4, contexts=8))
    tokens = PAIRING.queries().tokenize(model)
    written = [bare.greedy(text, 3, 1, vector.direction) for text in tokens.prompts.texts]
    spoil_at = [None, 0, 1, 2]  # every way to be wrong, and being right
    answers = [
        [(token + 1) % tiny.VOCAB if at == spoil_at[i % 4] else token for at, token in enumerate(answer)]
        for i, answer in enumerate(written)
    ]
    scores = score(model, replace(tokens, answer_ids=answers), vector.replace())
    assert scores.exact_match.tolist() == [float(a == w) for a, w in zip(answers, written)]
    assert scores.first_token.tolist() == [float(a[0] == w[0]) for a, w in zip(answers, written)]
    assert 0 < float(scores.exact_match.mean()) < float(scores.first_token.mean()) < 1


def test_on_a_real_model(smollm2):
    """Past tense at layer 20 of SmolLM2: the same vector, the same answers, the same share of them right."""
    module, tokenizer = weights.load_local(
        weights.embedded_folder("smollm2-135m"), dtype=torch.float32, device="cpu", device_map=None
    )
    bare, task = ByHand(module, tokenizer), tasks.task("present-past")
    vector = extract(smollm2, task, method=ResidualMean(layer=20, shots=4, contexts=2))
    by_hand = torch.stack([bare.last_states(text)[20] for text in task.prompts(4, 2, split="train").texts]).mean(0)
    assert float((vector.direction - by_hand).norm() / by_hand.norm()) < 1e-5
    queries = task.queries(6).tokenize(smollm2)
    asked = zip(queries.prompts.texts, queries.answer_ids)
    written = [bare.greedy(text, len(answer), 20, by_hand) for text, answer in asked]
    scores = score(smollm2, queries, vector.replace())
    assert scores.top.tolist() == [ids[0] for ids in written]
    assert scores.exact_match.tolist() == [float(w == a) for w, a in zip(written, queries.answer_ids)]
    assert float(scores.exact_match.mean()) >= 0.4
