"""Scores against what the model says when each answer token is asked for on its own."""

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import BudgetTooSmall, DuplicateSite, InvalidArgument, PromptError, ShapeMismatch
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.patching.scoring import FIELDS, score
from tv_lens.tasks import Prompts, Task

# Prompts of different lengths, answers of one to three tokens.
PROMPTS = Prompts.from_texts(["a>b;c>", "d>", "a>b;e>f;g>", "xyz>"], answers=["q", "rs", "tuv", "w"])
VALUE = torch.linspace(-1.0, 1.0, tiny.D_MODEL)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def gpt2():
    return tiny_characters.model("gpt2")


def one_by_one(model, prompts, edits_at=lambda length: ()):
    """The same scores from one unbatched, unpadded pass for every answer token."""
    tokens = prompts.tokenize(model)
    found = []
    for row, answer in zip(tokens.tokens.rows(), tokens.answer_ids):
        right, nats = [], 0.0
        for t, token in enumerate(answer):
            logits = model.run(torch.tensor([row + answer[:t]]), edits_at(len(row)))[0]
            right.append(int(logits.argmax()) == token)
            nats += float(logits.log_softmax(-1)[token])
        found.append((float(right[0]), float(all(right)), nats))
    return torch.tensor(found).T


def same(scores, expected):
    torch.testing.assert_close(torch.stack([scores.first_token, scores.exact_match]), expected[:2])
    torch.testing.assert_close(scores.log_prob, expected[2], atol=1e-5, rtol=1e-5)


def test_an_answer_of_one_token_is_scored_as_the_metrics_score_it(model):
    prompts = tiny_characters.pairings(1)[0].prompts(shots=3, n=8)
    tokens = prompts.tokenize(model)
    logits = model.run(tokens.tokens)
    scores = score(model, prompts)
    torch.testing.assert_close(scores.first_token, tv.metrics.exact_match(logits, tokens.answers))
    torch.testing.assert_close(scores.log_prob, tv.metrics.log_prob(logits, tokens.answers))
    assert torch.equal(scores.exact_match, scores.first_token)
    assert torch.equal(scores.top, logits.argmax(-1))
    assert len(scores) == 8


@pytest.mark.parametrize("which", ["model", "gpt2"])
def test_answers_of_several_tokens_are_scored_as_if_asked_token_by_token(which, request):
    model = request.getfixturevalue(which)
    same(score(model, PROMPTS), one_by_one(model, PROMPTS))


def test_the_greedy_continuation_matches_exactly(model):
    """Answers written by the model itself, so that a match of three tokens is there to be found."""
    tokens, own = PROMPTS.tokenize(model), []
    for row in tokens.tokens.rows():
        grown = list(row)
        for _ in range(3):
            grown.append(int(model.run(torch.tensor([grown]))[0].argmax()))
        own.append(grown[len(row) :])
    assert score(model, replace(tokens, answer_ids=own)).exact_match.tolist() == [1.0] * 4
    # With its last token spoilt an answer's first token still matches, the whole does not.
    spoilt = [[*answer[:-1], (answer[-1] + 1) % tiny.VOCAB] for answer in own]
    scores = score(model, replace(tokens, answer_ids=spoilt))
    assert scores.first_token.tolist() == [1.0] * 4
    assert scores.exact_match.tolist() == [0.0] * 4
    assert scores.top.tolist() == [answer[0] for answer in own]


@pytest.mark.parametrize(
    "site", ["resid_post[1]@-1", "resid_post[0]@-2", "attn_out[1]@0", "resid_post[1]@0,-1", "z[1].h2@-1"]
)
def test_positions_count_within_the_prompt_while_the_answer_follows(model, site):
    site = tv.Site.parse(site)
    value = VALUE[: model.shape.d_head] if site.component == "z" else VALUE

    def at(length):
        fixed = tuple(p if p >= 0 else length + p for p in site.positions)
        return tv.Replace(site.at(fixed if len(fixed) > 1 else fixed[0]), value)

    same(score(model, PROMPTS, tv.Replace(site, value)), one_by_one(model, PROMPTS, at))


def test_an_edit_without_position_acts_on_the_answers_tokens_too(model):
    edit = tv.Add("resid_post[0]", VALUE)
    same(score(model, PROMPTS, edit), one_by_one(model, PROMPTS, lambda _: edit))


def test_an_edit_of_nothing_changes_nothing(model):
    plain = score(model, PROMPTS)
    for nothing in (tv.Add("resid_post[1]@-1", VALUE, 0.0), tv.Add("resid_post[1]@-1", 0 * VALUE)):
        edited = score(model, PROMPTS, nothing)
        assert torch.equal(edited.log_prob, plain.log_prob)
        assert torch.equal(edited.top, plain.top)


def test_batches_do_not_show_in_the_scores(model):
    width = int(PROMPTS.tokenize(model).tokens.lengths.max()) + 2
    one = bytes_per_prompt(model.shape, width, 3)
    edit = tv.Replace("resid_post[1]@-1", VALUE)
    together, apart = score(model, PROMPTS, edit), score(model, PROMPTS, edit, memory_budget=one)
    torch.testing.assert_close(apart.log_prob, together.log_prob, atol=1e-5, rtol=1e-5)
    assert torch.equal(apart.top, together.top)
    with pytest.raises(BudgetTooSmall):
        score(model, PROMPTS, memory_budget=one // 10)


def test_a_value_for_each_prompt_meets_its_prompt_or_is_refused(model):
    values = torch.stack([VALUE * i for i in range(len(PROMPTS))])
    together = score(model, PROMPTS, tv.Replace("resid_post[1]@-1", values))
    for i, value in enumerate(values):
        alone = score(model, PROMPTS[i : i + 1], tv.Replace("resid_post[1]@-1", value))
        torch.testing.assert_close(alone.log_prob, together.log_prob[i : i + 1], atol=1e-5, rtol=1e-5)
    with pytest.raises(ShapeMismatch):  # in batches of one it would meet the wrong prompt
        score(model, PROMPTS, tv.Replace("resid_post[1]@-1", values), memory_budget=80_000)


def test_tokenized_prompts_are_scored_as_prompts_are(model):
    tokenized = PROMPTS.tokenize(model)
    assert torch.equal(score(model, tokenized).log_prob, score(model, PROMPTS).log_prob)


def test_the_model_is_left_as_it_was(model):
    before = model.run("a>b;c>")
    score(model, PROMPTS, tv.Replace("resid_post[1]@-1", VALUE))
    assert not model.registry.attached
    assert torch.equal(model.run("a>b;c>"), before)


def test_interventions_that_mix_prompts_are_refused(model):
    with pytest.raises(InvalidArgument) as caught:
        score(model, PROMPTS, tv.Resample("resid_post[1]@-1"))
    assert str(caught.value) == (
        "Resample(resid_post[1]@-1) takes its value from the batch's other prompts, and prompts are scored each on "
        "its own.\n  do:      compute the value first: Replace(site, value), or Mean(site, value=...)."
    )


def test_an_open_context_that_would_edit_the_answer_is_refused(model):
    edit = tv.Replace("resid_post[1]@-1", VALUE)
    single, several = PROMPTS.select([0, 3]), PROMPTS
    with model.intervene(edit):
        inside = score(model, single)
        with pytest.raises(InvalidArgument, match="counts back from the last token"):
            score(model, several)
    assert torch.equal(inside.log_prob, score(model, single, edit).log_prob)
    with model.intervene(tv.Replace("resid_post[1]@0", VALUE)):
        inside = score(model, several)
    torch.testing.assert_close(inside.log_prob, score(model, several, tv.Replace("resid_post[1]@0", VALUE)).log_prob)


def test_two_edits_of_one_site_are_refused_also_under_two_names(model):
    one = Prompts.from_texts(["a>b;c>"], answers=["rs"])  # -1 is position 5 here, and the answer's r is position 6
    edits = [tv.Replace("resid_post[1]@-1", VALUE), tv.Add("resid_post[1]@5", VALUE)]
    with pytest.raises(DuplicateSite):
        score(model, one, edits)
    stacked = edits[0].then(tv.Add("resid_post[1]@-1", VALUE))
    both = score(model, one, tv.Replace("resid_post[1]@-1", 2 * VALUE))
    torch.testing.assert_close(score(model, one, stacked).log_prob, both.log_prob)
    apart = score(model, one, [edits[0], tv.Add("resid_post[1]@0", VALUE)])
    assert not torch.equal(apart.log_prob, score(model, one, edits[0]).log_prob)


def test_a_prompt_that_its_answer_makes_too_long_is_refused(model):
    text = "a" * (tiny.CONTEXT - 1)
    assert len(score(model, Prompts.from_texts([text], answers=["bc"]))) == 1
    with pytest.raises(PromptError, match="longer than the model's context"):
        score(model, Prompts.from_texts([text], answers=["bcd"]))


def test_scores_print_their_means(model):
    task = Task("always", [(x, "1") for x in "abcdefghij"], template=tiny_characters.TEMPLATE)
    text = repr(score(model, task.queries(2)))
    assert text.startswith("Scores(2 prompts: first token ") and text.endswith("nats)")


def test_saved_scores_come_back(tmp_path):
    drawn = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    made = tv.patching.Scores(drawn[0].round(), drawn[1].round(), -drawn[2], torch.arange(4))
    again = tv.patching.Scores.load(made.save(tmp_path / "new" / "scores"))
    assert all(torch.equal(getattr(again, name), getattr(made, name)) for name in FIELDS)
