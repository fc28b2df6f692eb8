"""Where a model encodes tasks, what their vectors do, and the report of it."""

from tv_lens.experiments.task_survey.measure import SIZES, LensSize, lens
from tv_lens.experiments.task_survey.page import survey_page
from tv_lens.experiments.task_survey.result import LensResult

__all__ = [
    "SIZES", "LensResult", "LensSize", "lens", "survey_page",
]  # fmt: skip
