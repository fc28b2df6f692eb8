"""What a model writes while interventions stay in place, with the keys and values of what it has read or without them.

Positions count within the prompt. A pass over the whole text edits the same tokens again at every step; a pass over the
newest token alone continues from the keys and values that the edited prompt left. Both give the same tokens, and a
model for which a trial shows otherwise runs whole texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, PromptError
from tv_lens.intervention import Add, Intervention, Mean, Project, Replace, Stack, Zero
from tv_lens.model.capture import batch_size, bytes_per_prompt
from tv_lens.model.editing import Edit, placed_within, refuse_duplicates
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.length_tables import length_class
from tv_lens.model.logits import refuse_nonfinite_logits
from tv_lens.model.passes import in_batches
from tv_lens.model.stepping import is_close, trial_batch
from tv_lens.site import Site

Ids = list[int]
EACH_TOKEN_ALONE = (Add, Mean, Project, Replace, Zero)  # without a position they edit each token by itself


@dataclass(frozen=True, eq=False)
class Generation:
    """What a model has written after each prompt.

    Args:
        prompts: what it read.
        ids: the tokens that it wrote after each prompt, with the end-of-sequence token where it wrote one.
        tokenizer: turns them into text.
        provenance: how they were chosen, and under which edits.
    """

    prompts: TokenBatch
    ids: list[Ids]
    tokenizer: Any = field(repr=False)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The text written after each prompt, without special tokens.

        Raises:
            PromptError: the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise PromptError(
                "Tokens can only be read as text with a tokenizer.",
                got="a model without one",
                do="read .ids, or tv.load(model, tokenizer=...)",
            )
        return list(self.tokenizer.batch_decode(self.ids, skip_special_tokens=True))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        edits = ", ".join(self.provenance.get("edits", ())) or "no edits"
        shown = "" if self.tokenizer is None else "".join(f"\n  {text!r}" for text in self.texts[:5])
        more = f"\n  ... ({len(self)} in all)" if shown and len(self) > 5 else ""
        return f"Generation({len(self)} prompts, {self.provenance.get('decoding', '')}, {edits}){shown}{more}"


class Decoding(NamedTuple):
    """How tokens are chosen, where edits act, and what ends a text."""

    max_new_tokens: int = 20
    every_step: bool = False
    temperature: float = 0.0
    seed: int = 0
    eos: tuple[int, ...] = ()

    def chooser(self, prompts: Sequence[int]) -> Callable[[Float[Tensor, "batch d_vocab"]], Int[Tensor, " batch"]]:
        """Takes the logits of some prompts, by number, step after step; a prompt's draws are its own."""
        if self.temperature == 0:
            return lambda logits: logits.argmax(-1)
        generators = [torch.Generator().manual_seed(self.seed * 1_000_003 + prompt) for prompt in prompts]

        def drawn(logits: Tensor) -> Tensor:
            chances = (logits.double() / self.temperature).softmax(-1).cpu()
            draws = [torch.multinomial(row, 1, generator=one) for row, one in zip(chances, generators)]
            return torch.cat(draws).to(logits.device)

        return drawn

    def described(self) -> dict[str, Any]:
        """How the tokens were chosen, as JSON holds it."""
        drawn = {} if self.temperature == 0 else {"temperature": self.temperature, "seed": self.seed}
        return {
            "decoding": "sampling" if drawn else "greedy",
            **drawn,
            "max_new_tokens": self.max_new_tokens,
            "every_step": self.every_step,
            "eos": list(self.eos),
        }

    def cut(self, ids: Ids) -> Ids:
        """The tokens up to the first that ends a text."""
        end = next((i + 1 for i, token in enumerate(ids) if token in self.eos), None)
        return ids[:end]


def eos_ids(model: HookedBridge, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a text, as the model's own generation config names them, and else its tokenizer."""
    original = model.tl.original_model
    for source in (getattr(original, "generation_config", None), getattr(original, "config", None), tokenizer):
        named = getattr(source, "eos_token_id", None)
        if named is not None:
            return tuple(named) if isinstance(named, (list, tuple)) else (int(named),)
    return ()


def generated(
    model: HookedBridge,
    prompts: TokenBatch,
    edits: Sequence[Intervention],
    decoding: Decoding,
    *,
    budget: int,
    use_cache: bool = True,
    who: str = "model.generate",
) -> tuple[list[Ids], str | None]:
    """The tokens written after each prompt, and why no cache was used; see `HookedModel.generate`."""
    _check(model, prompts, edits, decoding)
    refuse_duplicates([Edit(edit) for edit in edits], prompts)
    rows, around = prompts.rows(), model.registry.edits_around()
    most = decoding.max_new_tokens
    shape, width = model.shape, prompts.width + most - 1
    cache = 2 * shape.n_layers * shape.n_kv_heads * shape.d_head * width * model.dtype.itemsize
    per_prompt = bytes_per_prompt(shape, width, 1, model.dtype.itemsize, cache)
    size, together = batch_size(model, len(rows), width, per_prompt, [*edits, *around], budget)
    why_not = "not asked for" if not use_cache else _why_no_cache(model, prompts, edits, most, together)
    written: list[Ids] = [[] for _ in rows]
    step = _whole_texts if why_not else _newest_tokens
    for group in [list(range(len(rows)))] if together else _by_length(rows):
        work = partial(_written, model, rows, edits, decoding, who, step, group)
        longest = max(len(rows[i]) for i in group) + most - 1
        at_once = min(size, len(group))
        for part, ids in in_batches(model, len(group), at_once, longest, work, who=who, together=together):
            for i, row in zip(group[part], ids):
                written[i] = row
    return written, why_not


def _check(model: HookedBridge, prompts: TokenBatch, edits: Sequence[Intervention], decoding: Decoding) -> None:
    """Raises for what cannot be written, and for edits that would not mean the same at every step."""
    most, temperature = decoding.max_new_tokens, decoding.temperature
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidArgument("A text has at least one token.", got=f"max_new_tokens={most!r}", allowed="1 or more")
    if not 0 <= temperature < float("inf"):
        raise InvalidArgument(
            "A temperature is 0 (the likeliest token) or a positive number.", got=f"temperature={temperature!r}"
        )
    if model.n_ids != model.shape.d_vocab:
        raise InvalidArgument(
            "This model predicts a number and not the next token, so it writes no text.", got=type(model).__name__
        )
    if prompts.width + most - 1 > model.shape.n_ctx:
        raise PromptError(
            "A prompt with the tokens written after it is longer than the model's context.",
            got=f"{prompts.width} tokens and max_new_tokens={most}",
            allowed=f"together at most {model.shape.n_ctx + 1}: the last one is not read",
            do="ask for fewer tokens, or use fewer demonstrations.",
        )
    if decoding.every_step and edits and not any(_site(edit).pos is None or _moves(edit) for edit in edits):
        raise InvalidArgument(
            "every_step=True repeats edits at pos=-1, and there is none.",
            got=", ".join(edit.label for edit in edits),
            do='name the last token: site.at(-1), or "resid_post[12]@-1".',
        )
    for edit in edits:
        if decoding.every_step and len(_site(edit).positions) > 1 and -1 in _site(edit).positions:
            raise InvalidArgument(
                "every_step=True repeats an edit of the last token, and this one edits others with it.",
                got=edit.label,
                do="make the edit at -1 one of its own.",
            )
    for open_edit in (edit for attachment in model.registry.attached_here for edit in attachment.edits):
        if most > 1 and any(pos < 0 for pos in _site(open_edit).positions):
            raise InvalidArgument(
                "An open model.intervene counts back from the last token of each pass, which is the newest one here.",
                got=open_edit.intervention.label,
                do="close it, and pass the edit as edits=; every_step=True repeats it at every new token.",
            )


def _site(edit: Intervention | Edit) -> Site:
    return Site.parse(edit.site)


def _moves(edit: Intervention) -> bool:
    """Whether an edit is at the last token alone."""
    return _site(edit).positions == (-1,)


def _by_length(rows: Sequence[Ids]) -> list[list[int]]:
    """The prompts in groups of one length: none is padded, so no mask is needed, and no edit sees padding."""
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(len(row), []).append(i)
    return list(groups.values())


# ---- step after step -------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Text:
    """Prompts of one batch and what was written after them so far."""

    rows: list[Ids]
    ends: Int[Tensor, " batch"]
    edits: Sequence[Intervention]
    every_step: bool
    cache: DynamicCache

    def placed(self, edit: Intervention, batch: TokenBatch, steps: int) -> list[Edit]:
        """The edit at its positions within the prompts, and at `steps` tokens after them where it is repeated."""
        if _site(edit).pos is None:
            return [Edit(edit)]
        columns, places = torch.arange(batch.width, device=batch.ids.device), []
        for step in range(steps + 1 if self.every_step and _moves(edit) else 1):
            places.append(placed_within(edit, TokenBatch(batch.ids, columns[None, :] < self.ends[:, None] + step)))
        return places


Step = Callable[[HookedBridge, _Text, int, str], Float[Tensor, "batch d_vocab"]]


def _written(
    model: HookedBridge,
    prompts: Sequence[Ids],
    edits: Sequence[Intervention],
    decoding: Decoding,
    who: str,
    step: Step,
    group: Sequence[int],
    part: slice,
) -> list[Ids]:
    """The tokens that the model writes after some of the prompts."""
    rows = [list(prompts[i]) for i in group[part]]
    lengths, choose = [len(row) for row in rows], decoding.chooser(group[part])
    ends = torch.tensor(lengths, dtype=torch.long, device=model.device)
    text = _Text(rows, ends, edits, decoding.every_step, DynamicCache())
    for n in range(decoding.max_new_tokens):
        logits = step(model, text, n, who)
        refuse_nonfinite_logits(logits, model, group[part][0], who)
        for row, token in zip(rows, choose(logits).tolist()):
            row.append(token)
        if all(any(token in decoding.eos for token in row[length:]) for row, length in zip(rows, lengths)):
            break
    return [decoding.cut(row[length:]) for row, length in zip(rows, lengths)]


def _whole_texts(model: HookedBridge, text: _Text, n: int, who: str) -> Float[Tensor, "batch d_vocab"]:
    """The logits after everything written so far, all of which is read again."""
    batch = TokenBatch.from_lists(text.rows).to(model.device)
    edits = [one for edit in text.edits for one in text.placed(edit, batch, n)]
    logits, _ = model.forward(batch, edits, logits_at=batch.last[:, None], who=who)
    return cast(Tensor, logits)[:, 0]


def _newest_tokens(model: HookedBridge, text: _Text, n: int, who: str) -> Float[Tensor, "batch d_vocab"]:
    """The logits after the newest tokens, from the keys and values of all before them."""
    arguments: dict[str, Any] = {"past_key_values": text.cache, "use_cache": True}
    if n == 0:
        batch = TokenBatch.from_lists(text.rows).to(model.device)
        edits = [one for edit in text.edits for one in text.placed(edit, batch, 0)]
    else:
        batch = TokenBatch.from_lists([row[-1:] for row in text.rows]).to(model.device)
        following = [edit for edit in text.edits if _site(edit).pos is None or (text.every_step and _moves(edit))]
        edits = [placed_within(edit, batch) for edit in following]
        arguments["position_ids"] = text.ends[:1][:, None] + n - 1
    logits, _ = model.forward(batch, edits, logits_at=batch.last[:, None], who=who, **arguments)
    return cast(Tensor, logits)[:, 0]


# ---- whether a cache gives the same ----------------------------------------------------------------------------------


def _why_no_cache(
    model: HookedBridge, prompts: TokenBatch, edits: Sequence[Intervention], most: int, together: str | None
) -> str | None:
    """Why whole texts are read at every step; None where the newest token alone gives the same."""
    if together is not None:
        return f"{together} needs all prompts in one batch"
    for edit in edits:
        if "key_pos" in _site(edit).entry.axes:
            return f"{edit.label} edits an axis that grows with the text"
        if _site(edit).pos is None and not _edits_each_token_alone(edit):
            return f"{edit.label} has no position, and may look at all tokens of the text"
    for edit in model.registry.edits_around():
        if _site(edit).pos is not None or "key_pos" in _site(edit).entry.axes or not _edits_each_token_alone(edit):
            return f"model.intervene is open, and {edit.label} needs the whole text"
    if model.facts.mark.hooks:
        return "hooks were added to the model by hand"
    for length in set(prompts.lengths.tolist()):
        if length_class(model.tl, length) != length_class(model.tl, length + most - 1):
            return "the model's rotary tables depend on the length"
    return model.facts.find("a cache gives what whole texts give", lambda: _disagreement(model))


def _edits_each_token_alone(edit: Intervention) -> bool:
    parts = edit.parts if isinstance(edit, Stack) else (edit,)
    return all(type(part) in EACH_TOKEN_ALONE for part in parts)


def _disagreement(model: HookedBridge) -> str | None:
    """None if a short random text read token by token gives the logits of the whole; else what differs."""
    if model.shape.n_ctx < 11:
        return "the context is too short to try a cache in"
    batch = trial_batch(model, 2, 11)
    whole, _ = model.forward(batch, logits_at=torch.arange(7, 11, device=batch.ids.device).expand(2, 4), who="a trial")
    rows = batch.rows()
    text = _Text(
        [row[:8] for row in rows],
        torch.tensor([8, 8], dtype=torch.long, device=batch.ids.device),
        (),
        False,
        DynamicCache(),
    )
    try:
        for n in range(4):
            logits = _newest_tokens(model, text, n, "a trial")
            if not is_close(logits, cast(Tensor, whole)[:, n], model.dtype):
                return "a cache gives other logits than the whole text on this architecture"
            for row, known in zip(text.rows, rows):
                row.append(known[min(8 + n, 10)])
    except Exception as error:  # whatever an unknown architecture raises when it is given a cache
        return f"this architecture cannot be given a cache ({type(error).__name__})"
    return None
