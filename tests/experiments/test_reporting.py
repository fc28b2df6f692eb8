"""`report`: one verb for the pages of all experiments."""

from __future__ import annotations

import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.experiments import TaskSurvey, report
from tv_lens.experiments.task_survey import survey_page


def test_every_result_has_its_page_and_nothing_else_has_one():
    assert {kind.__name__ for kind in report.registry} - {"object"} == {
        "DecodingResult",
        "Emergence",
        "PaperResult",
        "TaskSurvey",
    }
    with pytest.raises(InvalidArgument) as error:
        report(3)
    assert str(error.value) == (
        "There is no page of this.\n  got:     int\n  allowed: DecodingResult, Emergence, PaperResult, TaskSurvey"
    )


def test_the_page_of_a_survey_takes_what_its_function_takes():
    assert report.dispatch(TaskSurvey) is survey_page
    with pytest.raises(InvalidArgument, match="There is no page of this"):
        report("a string", out="anywhere")
