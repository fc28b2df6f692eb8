"""Experiments: functions that run several verbs and return one result with a page of its own."""

from tv_lens.experiments.lens import SIZES, LensSize, lens
from tv_lens.experiments.lens_result import LensResult

__all__ = ["SIZES", "LensResult", "LensSize", "lens"]
