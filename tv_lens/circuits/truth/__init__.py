"""Models whose circuit is known by construction, to test discovery methods on.

Each is a real small model (GPT-2 or Llama) with weights written by hand, behind the same bridge as any other.
"""

from tv_lens.circuits.truth.absolute import first_of_class, induction
from tv_lens.circuits.truth.board import TRUTHS, auroc, compared, scoreboard
from tv_lens.circuits.truth.known import Truth
from tv_lens.circuits.truth.relative import switch_tasks, switch_vector, task_switch, task_switch_decoding, two_steps

__all__ = [
    "TRUTHS",
    "Truth",
    "auroc",
    "compared",
    "first_of_class",
    "induction",
    "scoreboard",
    "switch_tasks",
    "switch_vector",
    "task_switch",
    "task_switch_decoding",
    "two_steps",
]
