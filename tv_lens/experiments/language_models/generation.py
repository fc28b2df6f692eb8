"""What a model writes by greedy decoding while interventions stay in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Intervention, as_interventions
from tv_lens.model.capture import prompts_per_pass
from tv_lens.model.editing import Edit, positions_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import in_batches, needs_whole_batch
from tv_lens.tasks.prompts import Prompts


def written_answers(
    model: HookedModel,
    prompts: Prompts,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    tokens: int = 8,
    stop: str | None = "\n",
) -> list[str]:
    """What greedy decoding writes after each prompt, up to `stop`.

    `tv.score(...).exact_match` answers the same question without writing: it is 1 if the text begins with the answer.

    Args:
        model: the model that writes.
        prompts: the prompts that it continues.
        interventions: in place while it writes. Positions count within the prompt: -1 is the prompt's last token, also
            when more tokens follow it.
        tokens: how many tokens are written at most.
        stop: text that ends an answer; if None, all tokens are returned.
    """
    if tokens < 1:
        raise InvalidArgument("An answer has at least one token.", got=f"tokens={tokens}")
    edits = as_interventions(interventions)
    rows = model.tokens(prompts.tokenize(model).tokens).rows()
    width = max(map(len, rows)) + tokens
    company = needs_whole_batch([*edits, *model.registry.edits_around()], len(rows))
    fitting = prompts_per_pass(model, width, 1, model.memory_budget)
    size = len(rows) if company else fitting
    parts = in_batches(
        model,
        len(rows),
        size,
        width,
        partial(_written, model, rows, edits, tokens),
        who="written_answers",
        together=company,
    )
    texts = model.tokenizer.batch_decode([answer for _, part in parts for answer in part], skip_special_tokens=True)
    return [text if stop is None else text.partition(stop)[0] for text in texts]


def _written(
    model: HookedModel, prompts: Sequence[list[int]], edits: Sequence[Intervention], tokens: int, part: slice
) -> list[list[int]]:
    """The tokens that the model writes after the prompts of one part."""
    rows = [list(row) for row in prompts[part]]
    lengths = [len(row) for row in rows]
    for _ in range(tokens):
        batch = model.tokens(TokenBatch.from_lists(rows))
        columns = torch.arange(batch.width, device=model.device)
        ends = torch.tensor(lengths, dtype=torch.long, device=model.device)
        within_prompts = TokenBatch(batch.ids, columns[None, :] < ends[:, None])
        logits, _ = model.forward(
            batch, [_held(edit, within_prompts) for edit in edits], logits_at=batch.last[:, None], who="written_answers"
        )
        rows = [[*row, token] for row, token in zip(rows, logits[:, 0].argmax(-1).tolist())]
    return [row[length:] for row, length in zip(rows, lengths)]


def _held(edit: Intervention, prompts: TokenBatch) -> Edit:
    """The edit at its positions within the prompts, whatever has been written after them."""
    if edit.site.pos is None:
        return Edit(edit)
    rows, columns = positions_of(prompts, edit.site.pos, prompts.ids.device)
    return Edit(edit, rows.expand_as(columns), columns)
