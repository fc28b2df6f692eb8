"""The row engine: many edits of a prompt in one pass, each recomputing only what it can change."""
