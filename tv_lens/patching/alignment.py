"""Pairs of prompts as tokens, lined up as far as a sweep over their positions needs it."""

from __future__ import annotations

from collections.abc import Sequence

from tv_lens.errors import MisalignedPrompts
from tv_lens.model.hooked_model import HookedModel
from tv_lens.site import Site
from tv_lens.tasks.prompts import PromptPairs
from tv_lens.tasks.tokenized import TokenizedPairs


def aligned(
    model: HookedModel, pairs: PromptPairs, targets: Sequence[Site], over: Sequence[str]
) -> tuple[TokenizedPairs, dict[str, object]]:
    """The pairs as tokens, aligned as far as the sweep needs it, and what was done to align them.

    Raises:
        MisalignedPrompts: they do not line up.
        PositionError: a site names a position beyond some prompt.
    """
    tokens, note = _drawn(model, pairs, targets, over)
    for position in sorted({p for site in targets for p in site.positions}):
        for side in (tokens.clean, tokens.corrupted):
            side.tokens.index(position)
    return tokens, note


def _drawn(
    model: HookedModel, pairs: PromptPairs, targets: Sequence[Site], over: Sequence[str]
) -> tuple[TokenizedPairs, dict[str, object]]:
    """The pairs as tokens of one structure where the sweep needs it, drawn again if they have to be."""
    tokens = pairs.tokenize(model)
    # An attention pattern's keys are positions too, so it can only be carried between prompts of one structure.
    by_position = "pos" in over or any(site.entry.position_axis == "query_pos" for site in targets)
    everywhere = by_position or any(site.pos is None for site in targets)
    if not everywhere or (tokens.is_uniform if by_position else tokens.is_aligned):
        return tokens, {"redrawn": False}
    if pairs.drawn_by is not None:
        tokens = pairs.uniform(model).tokenize(model)
        if tokens.is_uniform:
            return tokens, {
                "redrawn": True,
                "redrawn_why": "the sweep over positions needs prompts of one structure; "
                "they were drawn again, same seed, from words of the commonest token counts",
            }
    tokens.check_aligned()
    if by_position and not tokens.is_uniform:
        raise MisalignedPrompts(
            "The prompts have different structures, so a position has no one meaning.",
            got=f"{tokens!r}",
            do='sweep over "span", or give prompts of one token structure.',
        )
    return tokens, {"redrawn": False}
