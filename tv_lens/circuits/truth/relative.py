"""Known circuits in Llama: rotary positions, RMSNorm, grouped-query attention, a gated MLP.

A pair of rotary dimensions turns by `theta ** (-2 i / d_head)` per token. With theta = 1e8 and 16 dimensions pair 0
turns by a radian, pair 1 by a tenth, and pair 7 by a ten-millionth: what is matched by content lives in the last pair,
what is matched by distance in pair 1.
"""

from __future__ import annotations

import math
import random
from typing import Any

from tv_lens.circuits.truth import writing
from tv_lens.circuits.truth.known import Truth
from tv_lens.intervention import Replace
from tv_lens.model.grad_mode import GradMode, without_gradients
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.templates import Template

LAYERS, HEADS, KV_HEADS, D_MODEL, D_HEAD, D_MLP, CONTEXT, THETA = 3, 4, 2, 96, 16, 32, 64, 1e8
CONTENT, NEAR, TURN = 7, 1, 0.1  # the pair that does not turn, the one that turns slowly, and by how much
SURE = 4 * 40.0
ENTITIES = tuple("PQRSTUVW")
KINDS = ("one", "two", "three", "four")
FILLERS = tuple("uvwxyz")
X = tuple(f"x{i}" for i in range(10))
TEMPLATE = Template("switch", demo="{x} >", answer=" {y}", between=" ; ", bos="always")


def two_steps(n: int = 16, seed: int = 0) -> Truth:
    """A `Truth`: a lookup of a lookup, as in "the capital of the country of this city".

    The MLP of layer 0 looks up the half-way name of the one entity in the prompt. A head of layer 1, which shares its
    keys and values with another head, carries it to the last token. The MLP of layer 2 looks up the answer.

    Args:
        n: pairs of prompts; the corrupted twin has another entity at another place.
        seed: fixes the prompts, both tables, and the weights that do nothing.

    Example:
        >>> known = two_steps(n=2)
        >>> known.prompts[0][0].text, sorted(known.edges)
        ('w y x V u ?', ['a1.h2->m2', 'input->a1.kv1<k>', 'input->m0', 'm0->a1.kv1<v>', 'm2->logits'])
    """
    rng = random.Random(f"two steps|{seed}")
    words = ("<s>", *ENTITIES, *FILLERS, "?", *KINDS)
    count, entities = len(ENTITIES), range(1, 1 + len(ENTITIES))
    halfway = rng.sample(range(count), count)  # entity to half-way name, one to one
    final = [i % len(KINDS) for i in rng.sample(range(count), count)]  # half-way name to answer, two to one
    stream = writing.Stream(D_MODEL, dict(token=len(words), halfway=count, carried=count, out=len(KINDS)), False)
    model = _llama(stream, words, seed)
    _unembed(model, stream, words, {words.index(kind): i for i, kind in enumerate(KINDS)})
    first = {stream.at("token", i): stream.at("halfway", halfway[i - 1]) for i in entities}
    writing.llama_lookup(model, 0, stream, first)
    writing.llama_head(
        model,
        1,
        2,
        {
            "q": stream.reader(D_HEAD, {(stream.constant, CONTENT): stream.bias(SURE)}),
            "k": stream.reader(
                D_HEAD,
                {**{(stream.at("token", i), CONTENT): 1.0 for i in entities}, (stream.at("token", 0), CONTENT): 0.5},
            ),
            "v": stream.reader(D_HEAD, {(stream.at("halfway", i), i): 1.0 for i in range(count)}),
            "o": stream.writer(D_HEAD, {(i, stream.at("carried", i)): 1.0 for i in range(count)}),
        },
    )
    writing.llama_lookup(model, 2, stream, {stream.at("carried", i): stream.at("out", final[i]) for i in range(count)})

    answer = {one: KINDS[final[halfway[i]]] for i, one in enumerate(ENTITIES)}
    clean, corrupted, answers, foils = [], [], [], []
    while len(clean) < n:
        (one, here), (other, there) = zip(rng.sample(ENTITIES, 2), rng.sample(range(5), 2))
        if answer[one] == answer[other]:
            continue
        for entity, place, texts, ends in ((one, here, clean, answers), (other, there, corrupted, foils)):
            around = rng.sample(FILLERS, 4)
            texts.append(" ".join([*around[:place], entity, *around[place:], "?"]))
            ends.append(" " + answer[entity])
    edges = {"input->m0", "m0->a1.kv1<v>", "input->a1.kv1<k>", "a1.h2->m2", "m2->logits"}
    hooked = load(model, tokenizer=writing.tokenizer(words), name="truth-two-steps")
    pairs = PromptPairs.from_texts(clean, corrupted, answers, foils, bos="always", task="two steps")
    return Truth("two steps", hooked, pairs, frozenset(edges), "a table's answer looked up in a second table")


# ------------------------------------------------------------------------------------------------- the task switch


def switch_tasks(seed: int = 0) -> tuple[Task, Task]:
    """Two tasks over the same inputs: `x3 > a5` under one permutation, `x3 > b1` under another.

    Example:
        >>> first, second = switch_tasks()
        >>> first.prompts(shots=1, n=1)[0].text
        'x8 > a0 ; x3 >'
    """
    tasks = []
    for letter in "ab":
        order = random.Random(f"{letter}|{seed}").sample(range(len(X)), len(X))
        pairs = [(x, f"{letter}{order[i]}") for i, x in enumerate(X)]
        tasks.append(Task(f"switch-{letter}", pairs, template=TEMPLATE, description=f"x to its {letter}"))
    return tasks[0], tasks[1]


def task_switch(n: int = 16, seed: int = 0) -> Truth:
    """A `Truth`: demonstrations show one of two tasks; an encoder head writes which one, two decoders read it.

    The encoder, in layer 0, averages over the answers shown: +1 for those of the first task, -1 for those of the
    second, written to one direction at the last token. In layer 2 each decoder looks at the query if the direction has
    its sign and at BOS otherwise, and looks its answer up in its output weights.

    Args:
        n: pairs of prompts; the corrupted twin shows the other task's answers to the same inputs.
        seed: fixes the prompts, both tasks, and the weights that do nothing.

    Source:
        The encoder-decoder picture of Han et al. 2025 (arXiv 2412.12276), definitions B.1 and B.2.

    Example:
        >>> known = task_switch(n=2)
        >>> known.prompts[0][0].text.count(">"), sorted(known.edges)[0]
        (4, 'a0.h1->a2.h0<q>')
    """
    first, second = switch_tasks(seed)
    pairs = first.pairs(3, corrupt="other_task", other=second, seed=seed, split="train")
    chosen = [i % len(pairs) for i in range(n)]
    if n > len(pairs):
        more = [
            first.pairs(3, corrupt="other_task", other=second, seed=seed + i, split="train")
            for i in range(math.ceil(n / len(pairs)))
        ]
        items = [(c, x) for one in more for c, x in one][:n]
        pairs = PromptPairs.from_texts(
            [c.text for c, _ in items],
            [x.text for _, x in items],
            [c.answer for c, _ in items],
            [c.foil for c, _ in items],
            bos="always",
            task="task switch",
        )
    else:
        pairs = pairs.select(chosen)
    edges = {"input->a0.kv0<v>", "a0.h1->a2.h0<q>", "a0.h1->a2.h3<q>", "a2.h0->logits", "a2.h3->logits"}
    return Truth("task switch", _switch(seed), pairs, frozenset(edges), "which task it is, and then its answer")


def switch_vector(model: HookedModel, value: float = 1.0) -> Replace:
    """The task vector of the first task (`value=1`), of the second (-1) or of none (0): an Intervention.

    It is what the encoder makes of the last token: the token `>`, the constant, and the task's direction.

    Example:
        >>> vector = switch_vector(task_switch(n=2).model)
        >>> vector.site
        resid_post[0]@-1
    """
    stream = _switch_stream()
    vector = model.tl.original_model.get_input_embeddings().weight.detach()[_switch_words().index(">")].clone()
    vector[stream.at("task", 0)] = value
    return Replace("resid_post[0]@-1", vector)


def task_switch_decoding(n: int = 10, seed: int = 0) -> Truth:
    """A `Truth`: the first task's vector, injected into queries without demonstrations, and the decoder that reads it.

    Args:
        n: queries, at most ten; each has the other task's answer as its foil.
        seed: fixes both tasks and the weights that do nothing.

    Example:
        >>> sorted(task_switch_decoding(n=2).edges)
        ['a2.h0->logits', 'source->a2.h0<q>']
    """
    first, second = switch_tasks(seed)
    model = _switch(seed)
    inputs = random.Random(f"decoding|{seed}").sample(X, min(n, len(X)))
    prompts = Prompts.from_texts(
        [f"{x} >" for x in inputs],
        [f" {first.lookup[x]}" for x in inputs],
        [f" {second.lookup[x]}" for x in inputs],
        bos="always",
        task="task switch",
    )
    edges = frozenset({"source->a2.h0<q>", "a2.h0->logits"})
    return Truth(
        "task switch, decoding",
        model,
        prompts,
        edges,
        "a known task vector and its decoder",
        source=switch_vector(model),
    )


def _switch_words() -> tuple[str, ...]:
    return ("<s>", *X, *(f"{letter}{i}" for letter in "ab" for i in range(len(X))), ">", ";")


def _switch_stream() -> writing.Stream:
    return writing.Stream(D_MODEL, dict(token=len(_switch_words()), task=1, out=2 * len(X)), False)


def _switch(seed: int) -> HookedModel:
    """The model of the task switch, behind its registry."""
    words, stream, count = _switch_words(), _switch_stream(), len(X)
    first, second = switch_tasks(seed)
    model = _llama(stream, words, seed)
    _unembed(
        model,
        stream,
        words,
        {words.index(f"{letter}{i}"): i + count * (letter == "b") for letter in "ab" for i in range(count)},
    )
    with GradMode(False):  # without a task, a token that is no answer is the most probable
        model.lm_head.weight[words.index(";"), stream.constant] = stream.bias(1.0)
    shown = {1 + count + i: 1.0 if i < count else -1.0 for i in range(2 * count)}
    writing.llama_head(
        model,
        0,
        1,
        {
            "q": stream.reader(D_HEAD, {(stream.constant, CONTENT): stream.bias(SURE)}),
            "k": stream.reader(
                D_HEAD,
                {**{(stream.at("token", i), CONTENT): 1.0 for i in shown}, (stream.at("token", 0), CONTENT): 0.5},
            ),
            "v": stream.reader(D_HEAD, {(stream.at("token", i), 0): sign for i, sign in shown.items()}),
            "o": stream.writer(D_HEAD, {(0, stream.at("task", 0)): 1.0}),
        },
    )
    inputs, half = range(1, 1 + count), D_HEAD // 2
    near = 4 * 200.0
    for head, task, sign, shift in ((0, first, 1.0, 0), (3, second, -1.0, count)):
        order = [int(task.lookup[x][1:]) + shift for x in X]
        writing.llama_head(
            model,
            2,
            head,
            {
                # The nearest input scores 200, the one before it 16 less; BOS scores 150 with the task's own sign and
                # 250 without it.
                "q": stream.reader(
                    D_HEAD,
                    {
                        (stream.constant, NEAR): stream.bias(near * math.cos(TURN)),
                        (stream.constant, NEAR + half): stream.bias(-near * math.sin(TURN)),
                        (stream.constant, CONTENT): stream.bias(near * 1.25),
                        (stream.at("task", 0), CONTENT): -sign * near / 2,
                    },
                ),
                "k": stream.reader(
                    D_HEAD,
                    {**{(stream.at("token", i), NEAR): 1.0 for i in inputs}, (stream.at("token", 0), CONTENT): 1.0},
                ),
                "v": stream.reader(D_HEAD, {(stream.at("token", i), i - 1): 1.0 for i in inputs}),
                "o": stream.writer(D_HEAD, {(i, stream.at("out", order[i])): 1.0 for i in range(count)}),
            },
        )
    return load(model, tokenizer=writing.tokenizer(words), name="truth-task-switch")


# ------------------------------------------------------------------------------------------------------- embeddings


@without_gradients
def _llama(stream: writing.Stream, words: tuple[str, ...], seed: int) -> Any:
    """The model with tokens as one-hot vectors in their subspace, and no unembedding yet."""
    model = writing.llama(stream, len(words), CONTEXT, LAYERS, HEADS, KV_HEADS, D_HEAD, D_MLP, THETA, seed)
    table = stream.embedding({i: {stream.at("token", i): 1.0} for i in range(len(words))}, len(words))
    model.model.embed_tokens.weight.copy_(table)
    return model


@without_gradients
def _unembed(model: Any, stream: writing.Stream, words: tuple[str, ...], read: dict[int, int]) -> None:
    """Logits of some tokens, each read from its coordinate of `out`."""
    places = {token: stream.at("out", place) for token, place in read.items()}
    model.lm_head.weight.copy_(stream.unembedding(len(words), places))
