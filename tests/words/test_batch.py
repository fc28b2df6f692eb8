"""TokenBatch: padding on either side, and positions counted over real tokens."""

from __future__ import annotations

import pytest
import torch

from tv_lens.batch import TokenBatch, _check_shapes
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, PromptError, ShapeMismatch

ROWS = [[5, 6, 7, 8], [9], [3, 4]]


@pytest.mark.parametrize("side, first, last", [("right", [0, 0, 0], [3, 0, 1]), ("left", [0, 3, 2], [3, 3, 3])])
def test_first_and_last_are_real_tokens(side, first, last):
    batch = TokenBatch.from_lists(ROWS, pad_id=0, side=side)
    assert batch.first.tolist() == first and batch.last.tolist() == last
    assert batch.lengths.tolist() == [4, 1, 2] and len(batch) == 3 and batch.width == 4 and batch.is_padded
    assert batch.rows() == ROWS


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pos", [0, -1])
def test_index_points_at_the_token_that_the_position_names(side, pos):
    batch = TokenBatch.from_lists(ROWS, pad_id=0, side=side)
    found = batch.ids[torch.arange(3), batch.index(pos)]
    assert found.tolist() == [row[pos] for row in ROWS]


def test_positions_count_from_the_first_real_token():
    batch = TokenBatch.from_lists([[1, 2, 3], [4]], pad_id=0, side="left")
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert TokenBatch.from_lists([[1, 2, 3], [4]]).positions.tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("pos", [2, -3])
def test_a_position_beyond_a_prompt_is_named(pos):
    with pytest.raises(PositionError) as error:
        TokenBatch.from_lists(ROWS, pad_id=0).index(pos)
    assert str(error.value) == (
        f"Position {pos} lies beyond some prompts.\n"
        f"  got:     pos={pos}; rows 1, 2 are shorter (the shortest has 1 tokens)\n"
        "  allowed: -1 to 0 for every row of this batch\n"
        "  do:      choose a position that every prompt has, or leave short prompts out with .select(rows)"
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_select_keeps_the_tokens_and_drops_spare_columns(side):
    batch = TokenBatch.from_lists(ROWS, pad_id=0, side=side)
    assert batch.select([2, 1]).rows() == [[3, 4], [9]] and batch.select([2, 1]).width == 2
    assert batch.select(slice(0, 2)).rows() == ROWS[:2]
    assert batch.select(torch.tensor([True, False, True])).rows() == [ROWS[0], ROWS[2]]
    assert batch.select([0, 0]).rows() == [ROWS[0], ROWS[0]]
    with pytest.raises(EmptySelection):
        batch.select([])


def test_equal_rows_need_no_pad_id():
    batch = TokenBatch.from_lists([[1, 2], [3, 4]])
    assert not batch.is_padded and repr(batch) == "TokenBatch(2 prompts of 2 tokens)"
    assert repr(TokenBatch.from_lists(ROWS)) == "TokenBatch(3 prompts of 1-4 tokens)"
    assert batch.to("cpu").rows() == [[1, 2], [3, 4]]


def test_what_is_not_a_batch_is_refused():
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(PromptError, match=r"A prompt has no tokens\.\n  got:     1 of 2 rows are empty: 1"):
        TokenBatch.from_lists([[1], []])
    with pytest.raises(EmptySelection, match="at least one row"):
        TokenBatch.from_lists([])
    with pytest.raises(InvalidArgument, match="has a hole"):
        TokenBatch(ids, torch.tensor([[True, False, True], [True, True, True]]))
    # In the tests the type checker of the constructor steps in before these; a user has none.
    with pytest.raises(ShapeMismatch, match=r"ids \[2, 3\], mask \[2, 2\]"):
        _check_shapes(ids, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(InvalidArgument, match=r"got:     torch\.float32"):
        _check_shapes(ids.float(), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InvalidArgument, match=r"do:      give mask\.bool\(\)"):
        _check_shapes(ids, ids)
    with pytest.raises(InvalidArgument, match="on the right or on the left"):
        TokenBatch.from_lists([[1]], side="top")
