"""Scoring answers: by first token, by the log-probability of the whole answer, and by greedy exact match.

The answer's tokens are appended to the prompt and all of them are read in one pass (teacher forcing). Greedy decoding
would write the answer if and only if each of its tokens is the top prediction after those before it, so exact match
needs no decoding loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Intervention, as_interventions
from tv_lens.metrics import Answers, checked, exact_match, log_prob
from tv_lens.model.capture import prompts_per_pass
from tv_lens.model.editing import Edit, placed_within, refuse_duplicates
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import in_batches
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.storage import envelope
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.tokenized import TokenizedPrompts

KIND = envelope.Kind("scores", "Scores.save(path)")
FIELDS = ("first_token", "exact_match", "log_prob", "top")
TOKENS_A_SHARD = 16384


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """How each prompt was answered, by three measures.

    Args:
        first_token: 1 where the top prediction is the answer's first token, else 0.
        exact_match: 1 where greedy decoding begins with the whole answer, else 0, whatever it would write after
            the answer.
        log_prob: log-probability of the whole answer, in nats, summed over its tokens.
        top: the token predicted right after the prompt.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=3)
        >>> found = score(known.model, known.prompts.clean, progress=False)
        >>> found.first_token.tolist(), found.exact_match.tolist()
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    """

    first_token: Float[Tensor, "batch"]
    exact_match: Float[Tensor, "batch"]
    log_prob: Float[Tensor, "batch"]
    top: Int[Tensor, "batch"]

    def __len__(self) -> int:
        return len(self.first_token)

    def save(self, path: str | Path) -> Path:
        """Writes the scores to one safetensors file, whole or not at all, and returns its path."""
        return envelope.write(path, KIND, {name: getattr(self, name) for name in FIELDS}, {})

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """The scores that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            return cls(**{name: file[name] for name in FIELDS})

    def __repr__(self) -> str:
        return (
            f"Scores({len(self)} prompts: first token {float(self.first_token.mean()):.2f}, "
            f"exact match {float(self.exact_match.mean()):.2f}, "
            f"log-probability {float(self.log_prob.mean()):.2f} nats)"
        )


@verb
def score(
    model: HookedModel,
    prompts: Prompts | TokenizedPrompts,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    memory_budget: int | None = None,
    who: str = "tv.score",
    folder: FolderLike = None,
    progress: bool = True,
    bar: Bar | None = None,
) -> Scores:
    """How the model answers each prompt, by three measures, with or without interventions.

    Args:
        model: the model that answers.
        prompts: prompts with their answers.
        interventions: edits during the pass. Their positions count within the prompt: -1 is the prompt's last
            token and stays there while the answer's tokens follow. An edit without a position acts on the answer's
            tokens too.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        who: the verb that calls, for the progress bar and the registry.
        folder: a folder that keeps the scores of finished prompts, so that a killed call continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).
        bar: a bar that is shown already, to advance by one step per prompt instead.

    Raises:
        PromptError: a prompt with its answer is longer than the model's context.
        InvalidArgument: an intervention takes its value from other prompts of the batch, or stands in an open
            `model.intervene`, which cannot know where a prompt ends and its answer begins.
        NonFiniteMetric: a logit is not a number.

    Sign:
        Higher is better in all three; `log_prob` is 0 at certainty and negative otherwise.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=8)
        >>> tv.score(known.model, known.prompts.clean, progress=False)
        Scores(8 prompts: first token 1.00, exact match 1.00, log-probability -0.00 nats)
        >>> tv.score(known.model, known.prompts.clean, tv.Zero("z[2].h1"), progress=False)
        Scores(8 prompts: first token 0.25, exact match 0.25, log-probability -2.50 nats)
    """
    tokens = prompts.tokenize(model) if isinstance(prompts, Prompts) else prompts
    edits = as_interventions(interventions)
    most = max(len(answer) for answer in tokens.answer_ids)
    _refuse(model, edits, most)
    lengths = tokens.tokens.lengths.tolist()
    # The answer's last token is predicted, never read.
    whole = [row + answer[:-1] for row, answer in zip(tokens.tokens.rows(), tokens.answer_ids)]
    batch = model.tokens(TokenBatch.from_lists(whole))
    size = prompts_per_pass(model, batch.width, most, memory_budget or model.memory_budget)

    def scored(part: slice, shown: Bar) -> Piece:
        """The scores of some prompts, in batches that fit the budget."""
        arguments = (batch.select(part), lengths[part], tokens.answer_ids[part], edits, who)
        n, work = part.stop - part.start, partial(_scored, model, *arguments)
        pieces = []
        for rows, piece in in_batches(model, n, size, batch.width, work, who=who):
            pieces.append(piece)
            (bar or shown).advance(rows.stop - rows.start)
        return {name: torch.cat([getattr(piece, name) for piece in pieces]) for name in FIELDS}

    step = max(1, TOKENS_A_SHARD // batch.width)
    parts = [slice(start, min(start + step, len(batch))) for start in range(0, len(batch), step)]
    config = {"tokens": tokens.tokens, "answers": tokens.answer_ids, "edits": edits, "memory_budget": memory_budget}
    work = Work.on(model, "score", config, folder, progress and bar is None)
    steps = [part.stop - part.start for part in parts]
    finished = work.run(scored, parts, label=who, unit="prompts", steps=steps)
    return Scores(**{name: torch.cat([torch.from_numpy(shard[name]) for shard in finished]) for name in FIELDS})


def _refuse(model: HookedModel, edits: Sequence[Intervention], most: int) -> None:
    """Raises for edits whose meaning would depend on how prompts are batched, or on the answers after them."""
    for edit in edits:
        if edit.mixes_prompts:
            raise InvalidArgument(
                f"{edit.label} takes its value from the batch's other prompts, and prompts are scored each on its own.",
                do="compute the value first: Replace(site, value), or Mean(site, value=...).",
            )
    for open_edit in (edit for attachment in model.registry.attached_here for edit in attachment.edits):
        if most > 1 and open_edit.rows is None and any(pos < 0 for pos in open_edit.site.positions):
            raise InvalidArgument(
                "An open model.intervene counts back from the last token of the pass, which is the answer's here.",
                got=open_edit.intervention.label,
                do="close it, and pass the edit as interventions=.",
            )


def _scored(
    model: HookedModel,
    whole: TokenBatch,
    lengths: Sequence[int],
    answer_ids: Sequence[Sequence[int]],
    edits: Sequence[Intervention],
    who: str,
    rows: slice,
) -> Scores:
    """The scores of some of the prompts, each followed by its answer."""
    batch, lengths, answer_ids = whole.select(rows), lengths[rows], answer_ids[rows]
    device = batch.ids.device
    prompt_ends = torch.tensor(list(lengths), device=device, dtype=torch.long)
    columns = torch.arange(batch.width, device=device)
    prompts = TokenBatch(batch.ids, columns[None, :] < prompt_ends[:, None])
    refuse_duplicates([Edit(edit) for edit in edits], prompts)
    placed = [placed_within(edit, prompts) for edit in edits]

    n = max(len(answer) for answer in answer_ids)
    counts = torch.tensor([len(answer) for answer in answer_ids], device=device, dtype=torch.long)
    answers = torch.tensor(
        [[*answer, *[0] * (n - len(answer))] for answer in answer_ids], device=device, dtype=torch.long
    )
    within = torch.arange(n, device=device)
    is_answer = within[None, :] < counts[:, None]  # batch n: where an answer has a token
    predicts = torch.minimum(prompt_ends[:, None] - 1 + within, batch.last[:, None])

    logits, _ = model.forward(batch, placed, logits_at=predicts, who=who)
    flat, targets = logits[is_answer], Answers(answers[is_answer])
    right = torch.ones(is_answer.shape, device=device, dtype=torch.float32)
    right[is_answer] = checked(exact_match, flat, targets, "an answer's tokens").to(device)
    nats = torch.zeros(is_answer.shape, device=device, dtype=torch.float32)
    nats[is_answer] = checked(log_prob, flat, targets, "an answer's tokens").to(device)
    return Scores(right[:, 0].cpu(), right.prod(1).cpu(), nats.sum(1).cpu(), logits[:, 0].argmax(-1).cpu())
