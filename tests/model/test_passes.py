"""A device without room: batches are halved, told of, and hold what the whole batch holds. The device is played by an
embedding that raises torch's own error above so many tokens, from within the model's forward pass."""

from __future__ import annotations

import warnings

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import OutOfMemory, PromptError, RunMismatch, TVLensError
from tv_lens.experiments.language_models.checkpoints import across_models
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.model.passes import (
    CPU_TOKENS,
    MOST_TOKENS,
    in_batches,
    needs_whole_batch,
    out_of_memory,
    prompts_at_once,
    tokens_at_once,
)
from tv_lens.site import Site
from tv_lens.task_vectors.activation_table import read_rows

IDS = torch.randint(3, 60, (8, 7), generator=torch.Generator().manual_seed(0))


class Crowded(torch.nn.Embedding):
    """An embedding on a device that holds `room` tokens."""

    room: int | None = None
    asked: list[int]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.asked.append(ids.numel())
        if self.room is not None and ids.numel() > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return super().forward(ids)


@pytest.fixture
def crowded():
    """A model and its embedding, whose room a test sets."""
    source = tiny.hugging_face_model("llama")
    table = Crowded.from_pretrained(source.model.embed_tokens.weight.detach())
    table.asked = []
    source.model.embed_tokens = table
    return tv.load(source, tokenizer=tiny_characters.tokenizer(), name="crowded"), table


def halved(work, table, room):
    """What the work gives with room for everything and without, and what it said."""
    whole = work()
    table.room = room
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        part = work()
    return whole, part, [str(one.message) for one in said if "had no room" in str(one.message)]


def test_a_capture_goes_on_with_half_and_says_so(crowded):
    model, table = crowded
    sites = [Site("resid_post", 1), Site("z", 2)]
    whole, part, said = halved(lambda: model.capture(IDS, sites), table, 3 * 7)
    for site in sites:
        torch.testing.assert_close(part[site], whole[site], atol=1e-6, rtol=0)
    told = "model.capture: cpu had no room for {} prompts of 7 tokens at once; going on with {} at a time"
    assert said == [told.format(8, 4), told.format(4, 2)]
    table.asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the device held is remembered
        model.capture(IDS, sites)
    assert table.asked == [14, 14, 14, 14]
    assert not model.registry.attached and not model.tl.list_hooks()


def test_logits_scores_and_answers_are_those_of_the_whole_batch(crowded):
    model, table = crowded
    prompts = tiny_characters.telling(2)[0].prompts(2, 6, seed=0)
    edit = tv.Replace("resid_post[1]@-1", torch.linspace(-1, 1, 32))
    for work in (
        lambda: model.run(IDS, edit),
        lambda: model.run(IDS, logits="all"),
        lambda: tv.score(model, prompts, edit, progress=False).log_prob,
    ):
        table.room = None
        whole, part, _said = halved(work, table, 25)
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)
    table.room = None
    whole, part, _ = halved(lambda: written_answers(model, prompts, edit, tokens=3, stop=None), table, 25)
    assert part == whole and len(whole) == 6


def test_answers_are_written_in_halves(crowded):
    model, table = crowded
    prompts = tiny_characters.telling(2)[0].prompts(2, 6, seed=0)
    whole, part, said = halved(lambda: written_answers(model, prompts, tokens=3, stop=None), table, 40)
    assert part == whole and said and said[0].startswith("written_answers: cpu had no room for 6 prompts")


@pytest.mark.parametrize("engine, room", [("passes", 3 * 7), ("rows", 3 * 7), ("rows", 8)])
def test_rows_are_those_of_the_whole_batch(crowded, engine, room):
    model, table = crowded
    places = ((6,), (4,))
    rows = [
        tv.rows.Row(i, (tv.rows.PlacedEdit(tv.Zero(Site(name, 1)), place),))
        for i in range(4)
        for name in ("z", "mlp_out", "resid_pre")
        for place in places
    ]

    def work():
        return tv.rows.run_rows(
            model,
            model.tokens(IDS),
            rows,
            lambda logits, index: logits[:, 5] - logits[:, 7],
            engine=engine,
            progress=False,
        ).values

    whole, part, said = halved(work, table, room)
    assert said
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_a_pack_without_room_is_run_row_by_row(crowded):
    model, table = crowded
    start = IDS[0].tolist() * 2
    rows = [start[:5], [*start[:5], *IDS[1].tolist()], [*start[:9], 7], start]
    site = Site("resid_post", 2)
    whole, part, _ = halved(lambda: read_rows(model, rows, [site])[site], table, 14)
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)
    assert max(table.asked) > 14 == max(n for n in table.asked if n <= 14)


def test_one_prompt_without_room_is_an_error_that_says_what_to_do(crowded):
    model, table = crowded
    table.room = 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OutOfMemory) as caught:
            model.capture(IDS, "resid_post[1]")
    assert isinstance(caught.value, TVLensError) and isinstance(caught.value, MemoryError)
    assert str(caught.value) == (
        "cpu has no room for a pass over one prompt of 7 tokens.\n"
        "  got:     CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "  do:      use shorter prompts or fewer sites and positions; a smaller memory_budget= runs fewer at once; "
        "tv.load(..., dtype='bfloat16') or device_map='auto' leaves more room beside the weights."
    )
    assert not model.registry.attached and not model.tl.list_hooks()
    table.room = None
    assert torch.isfinite(model.run(IDS)).all()


def test_a_model_without_a_tokenizer_is_told_before_anything_runs():
    model, tasks = tv.load(tiny.hugging_face_model("gpt2"), name="mute"), tiny_characters.telling(2)
    prompts = tasks[0].prompts(1, 2)
    for work in (
        lambda: tv.decodability(model, tasks, shots=1, n=4, k=2),
        lambda: tv.score(model, prompts),
        lambda: written_answers(model, prompts),
        lambda: tv.experiments.steer(model, tasks, layers=[1]),
        lambda: tv.experiments.paper(model, size="tiny"),
    ):
        with pytest.raises(PromptError, match="This model has no tokenizer") as caught:
            work()
        assert "tokenizer=" in caught.value.do


@pytest.mark.parametrize("edit", [tv.Mean("z[1]"), tv.Replace("resid_post[1]@-1", torch.randn(8, 32))], ids=repr)
def test_prompts_that_belong_together_are_not_parted(crowded, edit):
    model, table = crowded
    assert model.run(IDS, edit).shape == (8, tiny.VOCAB)
    table.room = 20
    with pytest.raises(OutOfMemory, match="needs all prompts in one batch, and the device has no room"):
        model.run(IDS, edit)


@pytest.mark.parametrize("asked, said", [([], "no room for a pass over one prompt"), (None, "AttributeError: ")])
def test_a_model_that_cannot_be_run_leaves_the_others(crowded, asked, said):
    model, table = crowded
    table.room, table.asked = 2, asked
    tasks, options = tiny_characters.telling(3), dict(shots=(1, 2), n=4, k=2, queries=2, layers=[1], progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = across_models([model, tiny_characters.model("gpt2")], {"letters": tasks}, **options)
    assert found.sources == ("gpt2",) and said in found.failed["crowded"] and "failed: crowded" in repr(found)


def test_a_folder_of_another_run_is_no_fault_of_the_model(tmp_path):
    model, tasks = tiny_characters.model("gpt2"), tiny_characters.telling(3)
    options = dict(shots=(1, 2), n=4, k=2, queries=2, layers=[1], progress=False, folder=tmp_path)
    across_models([model], {"letters": tasks}, **options)
    with pytest.raises(RunMismatch):
        across_models([model], {"letters": tasks}, **{**options, "n": 5})


def test_what_is_no_lack_of_memory_stays_what_it_is(crowded):
    model, table = crowded
    table.asked = None  # the embedding now fails in another way
    with pytest.raises(AttributeError):
        model.capture(IDS, "resid_post[1]")
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated ...)"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert not out_of_memory(RuntimeError("shapes do not match")) and not out_of_memory(OutOfMemory("told already"))


class Full(tv.Intervention):
    """An edit of a user's own that runs out of memory of its own."""

    def edit(self, x):
        raise MemoryError("my own table is full")


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_a_memory_error_of_a_users_edit_is_that_edits_and_not_the_devices(engine):
    model = tiny_characters.model("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no batch is halved
        with pytest.raises(MemoryError, match="my own table is full") as caught:
            model.run(IDS, Full("resid_post[1]"))
        assert not isinstance(caught.value, TVLensError)
        rows = [tv.rows.Row(i, (tv.rows.PlacedEdit(Full("resid_post[1]"), (6,)),)) for i in range(2)]
        with pytest.raises(MemoryError, match="my own table is full") as caught:
            tv.rows.run_rows(
                model, tv.tasks.TokenBatch.from_lists(IDS[:2].tolist()), rows, lambda x, _: x[:, 0], engine=engine
            )
        assert not isinstance(caught.value, TVLensError)
    assert out_of_memory(MemoryError("anywhere else in a pass"))


# ---- the batches themselves ------------------------------------------------------------------------------------------


class Device:
    """All that batches need to know of a model."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.facts = self
        self.held: dict[str, int] = {}

    def known(self, name: str, default: int) -> int:
        return self.held.get(name, default)

    def note(self, name: str, value: int) -> None:
        self.held[name] = value


def run_with_room(room: int, n: int, size: int, **options) -> list[tuple[int, int]]:
    """The batches of `n` prompts of 10 tokens on a device with room for so many prompts."""

    def work(rows: slice) -> slice:
        if rows.stop - rows.start > room:
            raise OutOfMemory("full")
        return rows

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = list(in_batches(Device(), n, size, 10, work, who="test", **options))
    assert all(rows == result for rows, result in batches)
    return [(rows.start, rows.stop) for rows, _ in batches]


def test_batches_cover_all_prompts_in_order():
    assert run_with_room(room=9, n=7, size=3) == [(0, 3), (3, 6), (6, 7)]
    assert run_with_room(room=9, n=0, size=3) == []


def test_a_batch_without_room_is_halved_until_it_fits():
    assert run_with_room(room=2, n=7, size=7) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]  # 7, 3, 1
    assert run_with_room(room=2, n=8, size=8) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    with pytest.raises(OutOfMemory, match="full"):
        run_with_room(room=0, n=2, size=2)
    with pytest.raises(OutOfMemory, match=r"Mean\(z\[0\]\) needs all prompts in one batch"):
        run_with_room(room=2, n=4, size=4, together="Mean(z[0])")


def test_no_more_prompts_run_at_once_than_make_a_pass_faster():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert tokens_at_once(cpu) == min(MOST_TOKENS, CPU_TOKENS * torch.get_num_threads())
    assert tokens_at_once(gpu) == MOST_TOKENS
    assert prompts_at_once(Device(), 10**9) == 1
    assert prompts_at_once(Device(), 3) == tokens_at_once(cpu) // 3


def test_edits_with_a_value_for_each_prompt_need_the_whole_batch():
    one, each = tv.Replace("resid_post[1]@-1", torch.ones(4)), tv.Replace("resid_post[1]@-1", torch.ones(8, 4))
    assert needs_whole_batch([one], 8) is None and needs_whole_batch([each], 5) is None
    assert needs_whole_batch([one, each], 8) == each.label
    assert needs_whole_batch([one.then(each)], 8) == one.then(each).label
    assert needs_whole_batch([tv.Mean("z[1]")], 2) == "Mean(z[1])"
