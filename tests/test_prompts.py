"""Prompts: spans, draws, corruptions, alignment, and what a tokenizer makes of them."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch

from tiny_tokenizers import byte_level
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, PromptError, RenamedError, UnknownName
from tv_lens.tasks import ARROW, IO, QA, Pair, PromptPairs, Prompts, Task, Template, family, task
from tv_lens.tasks.drawing import rng_of, shuffled_labels

PAST = task("present-past")
NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])
WORDS = tuple(word for pair in PAST.items[::2] for word in (pair.input, pair.output))


@pytest.fixture(scope="module")
def tokenizer():
    """Half of the verbs are single tokens, the others take several."""
    return byte_level(words=WORDS, size=1500)


def test_templates_render_as_they_read():
    shown = [Pair("go", "went"), Pair("see", "saw")]
    assert QA.render(shown, "run")[0] == "Q: go\nA: went\n\nQ: see\nA: saw\n\nQ: run\nA:"
    assert ARROW.render(shown, "run")[0] == "go→went\nsee→saw\nrun→"
    assert IO.render(shown[:1], "run")[0] == "Input: go\nOutput: went\n\nInput: run\nOutput:"
    assert Template(prefix="Past tense.\n").render([], "{y}")[0] == "Past tense.\nQ: {y}\nA:"


def test_spans_tile_the_text():
    text, spans = QA.render([Pair("go", "went")], "run")
    assert [(span.kind, span.demo, text[span.start : span.end]) for span in spans] == [
        ("prefix", None, "Q: "),
        ("x", 0, "go"),
        ("separator", 0, "\nA:"),
        ("y", 0, " went"),
        ("between", 0, "\n\nQ: "),
        ("query_x", None, "run"),
        ("query_separator", None, "\nA:"),
    ]
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]


def test_a_template_without_its_slots_is_refused():
    with pytest.raises(InvalidArgument, match=r"demo needs \{x\} exactly once\.\n  got:     demo='Q:'"):
        Template(demo="Q:")
    with pytest.raises(InvalidArgument, match=r"answer='\{y\}\{y\}'"):
        Template(answer="{y}{y}")
    with pytest.raises(UnknownName, match="No BOS policy"):
        Template(bos="sometimes")


def test_demonstrations_come_from_train_and_never_show_the_query():
    train = set(NUMBERS.split("train"))
    for split in ("train", "dev", "test"):
        for prompt in NUMBERS.prompts(shots=6, n=40, split=split):
            shown = prompt.demonstrations
            assert len(set(shown)) == 6 and set(shown) <= train
            assert prompt.input not in {pair.input for pair in shown}
            assert Pair(prompt.input, prompt.output) in NUMBERS.split(split)


def test_more_shots_and_prompts_only_add():
    few, many = NUMBERS.prompts(2, 5, seed=3), NUMBERS.prompts(7, 10, seed=3)
    for small, large in zip(few, many):
        assert small.input == large.input and small.demonstrations == large.demonstrations[:2]
    assert NUMBERS.prompts(2, 5, seed=4).texts != few.texts


def test_queries_come_round_again_only_with_demonstrations():
    prompts = NUMBERS.prompts(shots=3, n=25)
    assert len(set(prompts.inputs)) == 10 and len(set(prompts.texts)) == 25
    assert len(NUMBERS.queries()) == 10
    with pytest.raises(EmptySelection) as error:
        NUMBERS.queries(n=11)
    assert str(error.value) == (
        "The test split of 'successor' has fewer pairs than were asked for.\n"
        "  got:     n=11 without demonstrations\n"
        "  allowed: at most 10\n"
        "  do:      n=10 asks each pair once; with shots, queries may come round again"
    )


def test_impossible_counts_are_refused():
    with pytest.raises(EmptySelection, match="at most 30; demonstrations come from train"):
        NUMBERS.prompts(shots=31, n=1)
    with pytest.raises(InvalidArgument, match="shots=-1"):
        NUMBERS.prompts(shots=-1, n=1)
    with pytest.raises(InvalidArgument, match="n=0"):
        NUMBERS.pairs(shots=2, n=0)
    with pytest.raises(EmptySelection, match="0 to ask"):
        Task("t", [("a", "b")]).queries()


def test_prompts_are_a_sequence_with_a_recipe():
    prompts = NUMBERS.prompts(2, 5, template=IO)
    assert repr(prompts) == "Prompts(5 of 'successor', 2 shots, template 'io')"
    assert prompts[1:3].texts == prompts.texts[1:3] and len(list(prompts)) == 5
    assert prompts.recipe == {
        "task": "successor",
        "fingerprint": NUMBERS.fingerprint,
        "shots": 2,
        "n": 5,
        "seed": 0,
        "split": "test",
        "template": IO.to_dict(),
    }
    assert prompts[0].foil is None and NUMBERS.queries(5, foils=True)[0].foil not in (None, prompts[0].answer)


# Corruptions


def test_shuffled_labels_leave_their_place():
    for prompt, twin in NUMBERS.pairs(shots=8, n=20):
        assert prompt.input == twin.input and (prompt.answer, prompt.foil) == (twin.answer, twin.foil)
        clean, corrupted = prompt.demonstrations, twin.demonstrations
        assert [pair.input for pair in clean] == [pair.input for pair in corrupted]
        assert sorted(pair.output for pair in clean) == sorted(pair.output for pair in corrupted)
        assert all(a.output != b.output for a, b in zip(clean, corrupted))


@pytest.mark.parametrize("labels, stay", [("aabbcc", 0), ("aaabbc", 0), ("aaaab", 3), ("aa", 2), ("ab", 0)])
def test_as_few_labels_stay_as_can_be(labels, stay):
    pairs = [Pair(str(i), label) for i, label in enumerate(labels)]
    for seed in range(5):
        moved = shuffled_labels(pairs, rng_of(seed))
        assert sum(a == b for a, b in zip(pairs, moved)) == stay


def test_another_task_answers_the_same_inputs():
    gerund = task("present-gerund")
    for prompt, twin in PAST.pairs(shots=5, n=10, corrupt="other_task", other="present-gerund"):
        assert [pair.input for pair in twin.demonstrations] == [pair.input for pair in prompt.demonstrations]
        assert all(gerund.lookup[pair.input] == pair.output for pair in twin.demonstrations)
        assert prompt.foil == " " + gerund.lookup[prompt.input]


def test_a_task_over_other_inputs_lends_whole_demonstrations():
    capitals = task("country-capital")
    pairs = PAST.pairs(shots=5, n=10, corrupt="other_task", other=capitals)
    for prompt, twin in pairs:
        assert set(twin.demonstrations) <= set(capitals.split("train")) and twin.input == prompt.input
        assert prompt.foil[1:] in capitals.labels
    lent = {"task": "country-capital", "fingerprint": capitals.fingerprint}
    assert pairs.recipe["corrupted"]["other"] == lent


def test_queries_on_which_two_tasks_agree_are_left_out():
    pairs = [(str(i), str(i + 1)) for i in range(50)]
    other = Task("mostly", [(x, y if int(x) % 2 else "0") for x, y in pairs])
    for prompt in Task("t", pairs).pairs(3, 20, corrupt="other_task", other=other).clean:
        assert int(prompt.input) % 2 == 0 and prompt.foil == " 0"


def test_random_words_and_no_demonstrations():
    for _, twin in PAST.pairs(shots=5, n=10, corrupt="random_words"):
        words = [pair.output for pair in twin.demonstrations]
        assert len(set(words)) == 5 and not set(words) & set(PAST.labels)
    for prompt, twin in PAST.pairs(shots=5, n=10, corrupt="no_demonstrations"):
        assert twin.text == f"Q: {prompt.input}\nA:" and len(prompt.demonstrations) == 5


def test_a_corruption_must_exist_and_fit():
    with pytest.raises(UnknownName, match="did you mean 'shuffle_labels'"):
        PAST.pairs(2, 2, corrupt="shuffle_label")
    with pytest.raises(InvalidArgument, match="raise shots, or use corrupt='random_words'"):
        PAST.pairs(1, 2)
    with pytest.raises(InvalidArgument, match="'no_demonstrations' needs more demonstrations"):
        PAST.pairs(0, 2, corrupt="no_demonstrations")
    with pytest.raises(InvalidArgument, match=r"corrupt='other_task', other=None"):
        PAST.pairs(2, 2, corrupt="other_task")
    with pytest.raises(InvalidArgument, match=r"corrupt='shuffle_labels', other='antonym'"):
        PAST.pairs(2, 2, other="antonym")
    with pytest.raises(PromptError, match="no second answer"):
        Task("same", [(str(i), "x") for i in range(20)]).pairs(2, 2)


# Tokens


@pytest.mark.parametrize("template", [QA, ARROW, IO])
@pytest.mark.parametrize("bos", ["always", "never"])
def test_token_spans_hold_the_words(tokenizer, template, bos):
    template = Template(**{**template.to_dict(), "bos": bos})
    tokens = PAST.prompts(3, 6, template=template).tokenize(tokenizer)
    rows = tokens.tokens.rows()
    for prompt, row, spans, answer in zip(tokens.prompts, rows, tokens.token_spans, tokens.answer_ids):
        assert tokenizer.decode(row[bos == "always" :]) == prompt.text
        assert tokenizer.decode(answer) == prompt.answer
        starts, ends = [span.start for span in spans], [span.end for span in spans]
        assert [*starts, len(row)] == [0, *ends]
        found = {(span.kind, span.demo): tokenizer.decode(row[span.start : span.end]) for span in spans}
        assert (found.get(("bos", None)) == "<s>") == (bos == "always")
        assert found["query_x", None].strip() == prompt.input
        for i, pair in enumerate(prompt.demonstrations):
            assert found["x", i].strip() == pair.input and found["y", i].strip() == pair.output
            assert found["separator", i] == template.demo.split("{x}")[1]
    assert tokens.answers.correct.tolist() == [ids[0] for ids in tokens.answer_ids]
    assert tokens.answers.wrong is None


def test_bos_follows_the_models_own_tokenizer():
    prompts = NUMBERS.queries(2)
    assert prompts.tokenize(byte_level(bos=True)).tokens.ids[0, 0] == 1
    assert prompts.tokenize(byte_level(bos=False)).tokens.ids[0, 0] != 1
    assert prompts.tokenize(SimpleNamespace(tokenizer=byte_level(bos=True))).tokens.ids[0, 0] == 1


def test_position_of_finds_the_last_token_of_a_span(tokenizer):
    tokens = PAST.prompts(2, 8).tokenize(tokenizer)
    assert torch.equal(tokens.position_of("query_separator"), tokens.tokens.last)
    at = tokens.position_of("y", 1)
    for row, prompt in enumerate(tokens.prompts):
        up_to = tokenizer.decode(tokens.tokens.ids[row, : at[row] + 1].tolist())
        assert up_to.endswith(prompt.demonstrations[1].output)
    with pytest.raises(MisalignedPrompts, match=r"no tokens of kind 'y' for demonstration 2\."):
        tokens.position_of("y", 2)
    with pytest.raises(UnknownName, match="end of a span"):
        tokens.position_of("y", 1, end="middle")


CORRUPTIONS = [
    ("shuffle_labels", None),
    ("other_task", "present-gerund"),
    ("other_task", "antonym"),
    ("random_words", None),
]


@pytest.mark.parametrize("corrupt, other", CORRUPTIONS)
def test_uniform_pairs_line_up_token_by_token(corrupt, other):
    words = tuple(pair.input for pair in task("antonym")) + WORDS + tuple(task("present-gerund").labels)[::2]
    tokenizer = byte_level(words=words + tuple(task("capitalize").lookup)[::2], size=3000)
    pairs = PAST.pairs(4, 12, corrupt=corrupt, other=other)
    tokens = pairs.uniform(tokenizer).tokenize(tokenizer)
    assert tokens.is_uniform and tokens.is_aligned and len(tokens) == 12
    tokens.check_aligned()
    labels = tokens.token_labels()
    assert len(labels) == tokens.clean.tokens.width and "y3" in labels and labels[-1] == ":"
    assert pairs.uniform(tokenizer).clean.texts == tokens.clean.prompts.texts


def test_without_demonstrations_each_side_is_uniform(tokenizer):
    tokens = PAST.pairs(4, 12, corrupt="no_demonstrations").uniform(tokenizer).tokenize(tokenizer)
    assert tokens.clean.is_uniform and tokens.corrupted.is_uniform and not tokens.is_aligned
    with pytest.raises(MisalignedPrompts, match="Clean and corrupted do not line up in pair 0"):
        tokens.token_labels()


def test_unaligned_pairs_name_the_first_difference(tokenizer):
    tokens = PAST.pairs(4, 30).tokenize(tokenizer)
    with pytest.raises(MisalignedPrompts) as error:
        tokens.check_aligned()
    assert "clean has y" in error.value.got and "task.pairs(...).uniform(model)" in error.value.do
    with pytest.raises(MisalignedPrompts, match="differ in structure"):
        tokens.clean.token_labels()


def test_uniform_says_what_there_is_room_for(tokenizer):
    with pytest.raises(EmptySelection, match=r"allowed: at most \d+ shots"):
        PAST.pairs(110, 2).uniform(tokenizer)
    with pytest.raises(PromptError, match="written by hand cannot be drawn again"):
        PromptPairs.from_texts(["a"], ["b"], [" c"]).uniform(tokenizer)


def test_pairs_know_what_draws_them_again_under_its_new_name_alone():
    drawn, by_hand = PAST.pairs(shots=2, n=3), PromptPairs.from_texts(["one"], ["two"], [" three"])
    assert drawn.drawn_by is not None and by_hand.drawn_by is None
    with pytest.raises(RenamedError, match="PromptPairs.plan has another name"):
        drawn.plan  # noqa: B018
    with pytest.raises(RenamedError, match="use drawn_by="):
        PromptPairs(drawn.clean, drawn.corrupted, plan=None)
    again = pickle.loads(pickle.dumps(drawn))
    assert again == drawn and again.drawn_by.draw() == drawn


def test_prompts_can_be_exchanged_under_the_same_recipe():
    drawn = PAST.prompts(shots=2, n=3)
    fewer = drawn.with_items(drawn[:2])
    assert fewer == drawn[:2] and fewer.recipe == drawn.recipe and isinstance(fewer, Prompts)


def test_select_takes_rows_everywhere(tokenizer):
    tokens = PAST.pairs(2, 6).tokenize(tokenizer)
    part = tokens.select([4, 1])
    assert len(part) == 2 and part.clean.prompts.texts == tuple(tokens.clean.prompts.texts[i] for i in (4, 1))
    assert part.answers.wrong.tolist() == tokens.answers.wrong[[4, 1]].tolist()
    assert part.clean.token_spans == [tokens.clean.token_spans[i] for i in (4, 1)]
    assert part.clean.tokens.rows() == [tokens.clean.tokens.rows()[i] for i in (4, 1)]


def test_labels_number_the_tokens_of_a_long_span():
    letters = Task("t", [(f"{a}{b}", f"{b}{a}") for a in "zqx" for b in "jkv"])
    tokens = letters.prompts(1, 2).tokenize(byte_level())
    assert tokens.is_uniform and {"x0.0", "x0.1", "query.0", "query.1"} & set(tokens.token_labels())
    assert "\\n" in "".join(tokens.token_labels())


# What cannot be scored


def test_a_foil_that_begins_like_the_answer_is_replaced_or_refused(tokenizer):
    same = PromptPairs.from_texts(["Q: go\nA:"], ["Q: see\nA:"], [" went"], foils=[" went away"])
    with pytest.raises(PromptError) as error:
        same.tokenize(tokenizer)
    assert str(error.value) == (
        "The answer of prompt 0 and its foil begin with the same token.\n"
        "  got:     answer ' went', foil ' went away', both begin with ' went'\n"
        "  allowed: answers that differ in their first token\n"
        "  do:      task.audit(tokenizer) shows how often this happens; choose another foil, task or template"
    )
    # Letter by letter, half of the numbers begin alike: spare foils step in, and both sides get the same one.
    tens = Task("t", [(f"n{i}", f"{i % 3 + 1}{i}") for i in range(30)], template=ARROW)
    tokens = tens.pairs(2, 12).tokenize(byte_level())
    assert (tokens.answers.correct != tokens.answers.wrong).all()
    assert [p.foil for p in tokens.clean.prompts] == [p.foil for p in tokens.corrupted.prompts]


def test_an_answer_that_merges_with_the_prompt_is_refused(tokenizer):
    spaced = Template("spaced", demo="Q: {x}\nA: ", answer="{y}")
    wanted = Task("t", [(pair.input, pair.output) for pair in PAST.items[::2]])
    with pytest.raises(PromptError) as error:
        wanted.queries(3, template=spaced).tokenize(tokenizer)
    query = wanted.queries(3)[0]
    assert str(error.value) == (
        "The answer of prompt 0 merges with the end of the prompt into one token.\n"
        f"  got:     prompt ending {f'Q: {query.input}' + chr(10) + 'A: '!r}, answer {query.output!r}\n"
        "  allowed: a prompt that keeps its tokens when the answer is appended\n"
        "  do:      move the space at the prompt's end into the template's answer, as in answer=' {y}'"
    )


def test_empty_answers_and_prompts_are_refused(tokenizer):
    with pytest.raises(PromptError, match=r"The answer of prompt 1 is empty\.\n  got:     ' ' after 'b'"):
        Prompts.from_texts(["a", "b"], [" c", " "]).tokenize(tokenizer)
    with pytest.raises(PromptError, match="Prompt 0 is empty"):
        Prompts.from_texts([""], [" c"]).tokenize(tokenizer)
    assert Prompts.from_texts([""], [" c"], bos="always").tokenize(tokenizer).tokens.rows() == [[1]]
    with pytest.raises(EmptySelection, match="There are no prompts"):
        Prompts.from_texts([], [])


def test_texts_by_hand_need_one_of_each(tokenizer):
    with pytest.raises(PromptError, match="got:     2 clean, 1 corrupted, 2 answers"):
        PromptPairs.from_texts(["a", "b"], ["c"], [" d", " e"])
    tokens = PromptPairs.from_texts(["The cat"], ["The dog"], [" sat"], foils=[" ran"]).tokenize(tokenizer)
    assert tokens.clean.prompts[0].output == "sat" and len(tokens.answers) == 1
    assert PromptPairs.from_texts(["a"], ["b"], [" c"]).tokenize(tokenizer).answers.wrong is None


def test_some_foils_are_no_foils(tokenizer):
    items = (*NUMBERS.queries(1, foils=True), *NUMBERS.queries(1))
    with pytest.raises(PromptError, match="prompt 1 has none, 1 of 2 have one"):
        Prompts(items, template=QA).tokenize(tokenizer)


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(InvalidArgument, match="got:     int"):
        NUMBERS.queries(1).tokenize(3)
    with pytest.raises(PromptError, match="This model has no tokenizer"):
        NUMBERS.queries(1).tokenize(SimpleNamespace(tokenizer=None))

    class Slow:
        is_fast, decode, __call__ = False, str, str

    with pytest.raises(InvalidArgument, match="cannot say which characters a token covers"):
        NUMBERS.queries(1).tokenize(Slow())


def test_tasks_of_a_family_ask_the_same_prompts():
    texts = [one.queries(10).texts for one in family("verbs")]
    assert texts[0] == texts[1] == texts[2]
