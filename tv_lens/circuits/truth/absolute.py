"""Known circuits in GPT-2: learnt positions, LayerNorm, biases, a plain MLP."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tv_lens.circuits.truth import writing
from tv_lens.circuits.truth.known import Truth
from tv_lens.model.grad_mode import without_gradients
from tv_lens.model.hooked_model import load
from tv_lens.tasks.prompts import PromptPairs

LAYERS, HEADS, D_HEAD, D_MLP, CONTEXT = 3, 4, 16, 32, 8
SURE = 4 * 60.0  # a query-key product that, divided by sqrt(d_head), makes a softmax nearly one-hot
LETTERS = tuple("ABCDEFGHIJK")
CLASSES: Mapping[str, tuple[str, ...]] = {
    "noun?": ("tree", "bird", "door", "wolf"),
    "verb?": ("sing", "walk", "hide", "burn"),
    "adjective?": ("red", "old", "wide", "mild"),
}


def induction(n: int = 16, seed: int = 0) -> Truth:
    """A `Truth`: two heads in two layers find where the last token stood before, and copy what followed it.

    A head of layer 0 writes at every token which token stands before it. A head of layer 2 looks for the position
    where that is the last token of the prompt, and copies the token there to the logits.

    Args:
        n: pairs of prompts; the corrupted twin has other letters, and repeats the one at another place.
        seed: fixes the prompts and the weights that do nothing.

    Source:
        Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022, arXiv 2209.11895.

    Example:
        >>> known = induction(n=2)
        >>> known.prompts[0][0].text, sorted(known.edges)[0]
        ('A K B C D C', 'a0.h2->a2.h1<k>')
    """
    words = ("<s>", *LETTERS)
    stream = writing.Stream(
        HEADS * D_HEAD, dict(token=len(words), before=len(words), out=len(words), pos=CONTEXT), True
    )
    model = writing.gpt2(stream, len(words), CONTEXT, LAYERS, HEADS, D_MLP, seed)
    _embed(model, stream, words)
    steps = range(1, CONTEXT)
    writing.gpt2_head(
        model,
        0,
        2,
        {
            "q": stream.reader(D_HEAD, {(stream.at("pos", p), p): SURE for p in steps}),
            "k": stream.reader(D_HEAD, {(stream.at("pos", p - 1), p): 1.0 for p in steps}),
            "v": stream.reader(D_HEAD, {(stream.at("token", i), i): 1.0 for i in range(len(words))}),
            "o": stream.writer(D_HEAD, {(i, stream.at("before", i)): 1.0 for i in range(len(words))}),
        },
    )
    letters, sink = range(1, len(words)), D_HEAD - 1
    writing.gpt2_head(
        model,
        2,
        1,
        {
            "q": stream.reader(D_HEAD, {(stream.at("token", i), i): SURE for i in letters}),
            # Where nothing matches, all attention goes to BOS, whose value is zero.
            "k": stream.reader(
                D_HEAD, {**{(stream.at("before", i), i): 1.0 for i in letters}, (stream.at("token", 0), sink): 0.5}
            ),
            "v": stream.reader(D_HEAD, {(stream.at("token", i), i): 1.0 for i in letters}),
            "o": stream.writer(D_HEAD, {(i, stream.at("out", i)): 1.0 for i in letters}),
        },
        q_bias=[0.0] * sink + [SURE],
    )

    rng = random.Random(f"induction|{seed}")
    clean, corrupted, answers, foils = [], [], [], []
    for _ in range(n):
        drawn = rng.sample(LETTERS, 10)
        places = rng.sample(range(4), 2)
        sides = [(half, place) for half, place in zip((drawn[:5], drawn[5:]), places)]
        for (half, place), texts, ends in zip(sides, (clean, corrupted), (answers, foils)):
            texts.append(" ".join([*half, half[place]]))
            ends.append(" " + half[place + 1])
    edges = {"input->a0.h2<v>", "a0.h2->a2.h1<k>", "input->a2.h1<q>", "input->a2.h1<v>", "a2.h1->logits"}
    hooked = load(model, tokenizer=writing.tokenizer(words), name="truth-induction")
    pairs = PromptPairs.from_texts(clean, corrupted, answers, foils, bos="always", task="induction")
    return Truth("induction", hooked, pairs, frozenset(edges), "the token that followed this token before")


def first_of_class(n: int = 16, seed: int = 0) -> Truth:
    """A `Truth`: the first word of a class in a list, such as the first noun, compiled by hand.

    The MLP of layer 0 looks up the class of every word. A head of layer 1 attends, from the question at the end, to
    the words of the class in question, and most to the earliest; it copies the word.

    Args:
        n: pairs of prompts; the corrupted twin has other words in other classes and asks for another class.
        seed: fixes the prompts and the weights that do nothing.

    Source:
        The task of Han et al. 2025 (arXiv 2412.12276), natural experiments: the first noun, verb, adjective, ....

    Example:
        >>> known = first_of_class(n=2)
        >>> known.prompts[0][0].text, known.prompts[0][0].answer
        ('old door hide wolf wide adjective?', ' old')
    """
    lists = list(CLASSES.values())
    words = ("<s>", *(word for one in lists for word in one), *CLASSES)
    known = range(1, 1 + sum(map(len, lists)))
    stream = writing.Stream(HEADS * D_HEAD, {"token": len(words), "class": 3, "out": len(words), "pos": CONTEXT}, True)
    model = writing.gpt2(stream, len(words), CONTEXT, LAYERS, HEADS, D_MLP, seed)
    _embed(model, stream, words)
    writing.gpt2_lookup(model, 0, stream, {stream.at("token", i): stream.at("class", (i - 1) // 4) for i in known})
    first_question, order = known.stop, 3
    writing.gpt2_head(
        model,
        1,
        3,
        {
            "q": stream.reader(D_HEAD, {(stream.at("token", first_question + c), c): SURE for c in range(3)}),
            # Each step to the right costs a seventh of what the class is worth: eight steps, never all of it.
            "k": stream.reader(
                D_HEAD,
                {
                    **{(stream.at("class", c), c): 2.0 for c in range(3)},
                    **{(stream.at("pos", p), order): -p / 7 for p in range(CONTEXT)},
                },
            ),
            "v": stream.reader(D_HEAD, {(stream.at("token", i), i): 1.0 for i in known}),
            "o": stream.writer(D_HEAD, {(i, stream.at("out", i)): 1.0 for i in known}),
        },
        q_bias=[0.0] * order + [SURE] + [0.0] * (D_HEAD - order - 1),
    )

    rng = random.Random(f"first|{seed}")
    clean, corrupted, answers, foils = [], [], [], []
    while len(clean) < n:
        (left, clean_class), (right, corrupted_class) = ((_words(rng), rng.choice(list(CLASSES))) for _ in range(2))
        places = [_first(side, question) for side in (left, right) for question in (clean_class, corrupted_class)]
        # Every edge has to show in every pair: each class first stands at another place in the other list.
        if places[0] is None or places[3] is None or clean_class == corrupted_class:
            continue
        if places[0] == places[2] or places[1] == places[3]:
            continue
        if any(a == b for a, b in zip(left, right)) or left[places[0]] in right or right[places[3]] in left:
            continue
        clean.append(" ".join([*left, clean_class]))
        corrupted.append(" ".join([*right, corrupted_class]))
        answers.append(" " + left[places[0]])
        foils.append(" " + right[places[3]])
    edges = {"input->m0", "m0->a1.h3<k>", "input->a1.h3<q>", "input->a1.h3<v>", "a1.h3->logits"}
    hooked = load(model, tokenizer=writing.tokenizer(words), name="truth-first-of-class")
    pairs = PromptPairs.from_texts(clean, corrupted, answers, foils, bos="always", task="first of a class")
    return Truth("first of class", hooked, pairs, frozenset(edges), "the first word of the class that is asked")


def _words(rng: random.Random) -> list[str]:
    return rng.sample([word for one in CLASSES.values() for word in one], 5)


def _first(words: Sequence[str], question: str) -> int | None:
    return next((i for i, word in enumerate(words) if word in CLASSES[question]), None)


@without_gradients
def _embed(model: object, stream: writing.Stream, words: Sequence[str]) -> None:
    """Tokens and positions as one-hot vectors in their subspaces, and logits read from `out`."""
    n = len(words)
    model.transformer.wte.weight.copy_(stream.embedding({i: {stream.at("token", i): 1.0} for i in range(n)}, n))
    places = {p: {stream.at("pos", p): 1.0} for p in range(CONTEXT)}
    model.transformer.wpe.weight.copy_(stream.embedding(places, CONTEXT, constant=False))
    model.lm_head.weight.copy_(stream.unembedding(n, {i: stream.at("out", i) for i in range(1, n)}))
