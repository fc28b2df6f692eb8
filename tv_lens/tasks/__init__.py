"""Tasks, their templates, and the prompts that are made of them."""

from tv_lens.batch import TokenBatch
from tv_lens.tasks.audit import TaskAudit
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.surface import SurfaceAudit, surface_audit
from tv_lens.tasks.templates import ARROW, IO, QA, Pair, Span, Template
from tv_lens.tasks.tokenized import TokenizedPairs, TokenizedPrompts, TokenSpan
from tv_lens.tasks.words import check_null, families, family, names, null, task

__all__ = [
    "ARROW",
    "IO",
    "QA",
    "Pair",
    "Prompt",
    "PromptPairs",
    "Prompts",
    "Span",
    "SurfaceAudit",
    "Task",
    "TaskAudit",
    "Template",
    "TokenBatch",
    "TokenSpan",
    "TokenizedPairs",
    "TokenizedPrompts",
    "check_null",
    "families",
    "family",
    "names",
    "null",
    "surface_audit",
    "task",
]
