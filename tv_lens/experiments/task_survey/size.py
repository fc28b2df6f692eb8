"""How much a survey measures: a table of sizes, and sizes of your own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.renamed import renamed_keywords


@renamed_keywords(random_vectors="n_random=")
@checks_kinds
@dataclass(frozen=True)
class SurveySize:
    """How much of everything `survey` measures. More prompts make intervals narrower, more layers the curves finer.

    Args:
        name: what the report calls this size.
        contexts: prompts with demonstrations behind each vector.
        dev: development queries on which the vector's layer is chosen.
        layer_step: a vector is tried at every `layer_step`-th layer.
        queries: test queries per task and condition; a smaller test split is used whole.
        n_random: random vectors, each as long as the task vector.
        td_prompts: prompts per task for decodability.
        td_shots: numbers of demonstrations for decodability; those above the survey's own are left out.
        map_shots: demonstrations in the prompts of the map, at most the survey's own number.
        patch_pairs: pairs of prompts in the patching sweep.
        patch_shots: demonstrations in each of them.
        patch_layer_step: every `patch_layer_step`-th layer is patched.
        circuit_queries: queries on which the edges that decode the best vector are measured; 0 leaves the circuit out.
        circuit_screen: how many edges are measured, those with the largest gradients; all if None.
    """

    name: str = "custom"
    contexts: int = 100
    dev: int = 40
    layer_step: int = 1
    queries: int = 100
    n_random: int = 3
    td_prompts: int = 100
    td_shots: tuple[int, ...] = (0, 1, 4, 10)
    map_shots: int = 4
    patch_pairs: int = 8
    patch_shots: int = 4
    patch_layer_step: int = 1
    circuit_queries: int = 0
    circuit_screen: int | None = None

    def __post_init__(self) -> None:
        least = dict(
            contexts=1,
            dev=1,
            layer_step=1,
            queries=2,
            n_random=1,
            td_prompts=11,
            patch_pairs=1,
            patch_shots=2,
            patch_layer_step=1,
        )
        for key, low in least.items():
            if getattr(self, key) < low:
                raise InvalidArgument(
                    f"A survey's {key} is too small.", got=getattr(self, key), allowed=f"{low} or more"
                )


# On one CPU thread and a model of 135M parameters, four tasks take about 3 minutes, 6 minutes, and 20 minutes.
SIZES = {
    "demo": SurveySize("demo", contexts=8, dev=16, queries=20, n_random=2, td_prompts=15, td_shots=(0, 1, 4),
                     map_shots=1, patch_pairs=3, patch_shots=2, patch_layer_step=3),
    "standard": SurveySize("standard", contexts=30, dev=30, td_prompts=40, td_shots=(0, 1, 4), patch_pairs=4,
                         patch_shots=3, patch_layer_step=2, circuit_queries=8, circuit_screen=400),
    "full": SurveySize("full", circuit_queries=20),
}  # fmt: skip


def size_called(size: SurveySize | str, n: int | None = None) -> SurveySize:
    """A size, also by its name; with another number of test queries if one is given."""
    if isinstance(size, str):
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        size = SIZES[size]
    return size if n is None else replace(size, queries=n)
