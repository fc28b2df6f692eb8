"""The row engine: many edits of a prompt in one pass, each recomputing only what it can change."""

from tv_lens.intervention import Stack
from tv_lens.rows.engine import PlacedEdit, Row, run_rows

__all__ = ["PlacedEdit", "Row", "Stack", "run_rows"]
