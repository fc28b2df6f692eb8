"""Labelled numbers: a sweep of values per example, its intervals, its file."""

from tv_lens.results.concatenation import concat
from tv_lens.results.sweep import Sweep

__all__ = ["Sweep", "concat"]
