"""Where a model encodes tasks, what their vectors do, and the report on both."""

from tv_lens.experiments.task_survey.measure import survey
from tv_lens.experiments.task_survey.page import survey_page
from tv_lens.experiments.task_survey.result import TaskSurvey
from tv_lens.experiments.task_survey.size import SIZES, SurveySize

__all__ = ["SIZES", "SurveySize", "TaskSurvey", "survey", "survey_page"]
