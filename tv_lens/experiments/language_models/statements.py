"""The paper's claims about language models before the data: contrast, control, null and rule of each."""

from __future__ import annotations

from tv_lens.experiments.claims import BELOW, Claim, Condition
from tv_lens.task_vectors.decodability_result import STRONG

# What the paper reports for Llama-3.1-8B (Han et al. 2025, section 4 and appendices).
PAPER_R2 = {"pos": 0.781, "bitwise": 0.528}
PAPER_TABLE = {
    "pos": {"TD": (0.68, 0.97), "accuracy": (0.255, 0.344), "first": 0.694, "last": 0.339},
    "bitwise": {"TD": (0.43, 0.90), "accuracy": (0.262, 0.572), "first": 0.902, "last": 0.663},
}
PAPER_LAYER = {"pos": "15 of 32", "bitwise": "13 of 32"}
# Figure 3: tasks that are separate clouds with 10 shots, and tasks that overlap with Null.
CLEAR = {"pos": ("noun", "pronoun"), "bitwise": ("AND", "OR")}
BLURRED = {"pos": ("adjective", "preposition"), "bitwise": ("XOR", "XNOR")}
SURFACE = STRONG  # what the demonstrations give away: to the eye, or to a network that has learnt nothing
_SURFACE_WORDS = "the shown answers' tokens, characters, places and lengths, and in an untrained network"

RISE = Claim(
    "Fig. 3, 19",
    "decodability rises with shots",
    "rises",
    control=f"the same neighbours in {_SURFACE_WORDS}",
    null="the same at every number of shots; or as much more as the shown answers alone give away",
    conditions=(
        Condition("rise", "decodability at most shots less at fewest, at the best layer"),
        Condition("beyond", "this rise less the largest rise of these controls", control=True),
    ),
)
PEAK = Claim(
    "Fig. 19",
    "decodability peaks in the middle layers",
    "middle",
    control="what enters layer 0 at the position that is read, and the best layer of an untrained network",
    null="the first or the last layer that was read is as good as every one between, or an untrained network is",
    conditions=(
        Condition("first", "decodability at the best inner layer less at the first"),
        Condition("last", "decodability at the best inner layer less at the last"),
        Condition(
            "embedding",
            "decodability at the best inner layer less that of the embedding, and less the untrained network's",
            control=True,
        ),
    ),
)
SEPARATE = Claim(
    "Fig. 3",
    "some tasks are encoded better than others",
    "separate against overlapping with Null",
    control=f"the same gap in {_SURFACE_WORDS}",
    null="no gap; or the gap that the shown answers alone give",
    conditions=(
        Condition("gap", "decodability of the tasks that the paper separates less that of those it does not"),
        Condition("beyond", "this gap less the largest gap of these controls", control=True),
    ),
)
PREDICTS = Claim(
    "Fig. 4",
    "decodability predicts accuracy",
    "R²",
    control="the same line when the surface controls, or the numbers of shots, are taken out of both sides",
    null="a slope of 0; or one that the shown answers or the number of shots give to both sides",
    conditions=(
        Condition("slope", "slope of accuracy over decodability, over tasks and shots"),
        Condition("beyond", "slope beyond what answers alone tell", control=True),
        Condition("within", "slope within shot counts", control=True),
    ),
)
_STEERED = "the mean of another task and a random vector of the same length, written at the same place"
HELPS = Claim(
    "Fig. 20",
    "the task's own mean raises accuracy",
    "up to +0.14; +0.02 where tasks overlap",
    control=f"{_STEERED}, and Null's mean",
    null="no change; or the change that any vector of this length makes",
    conditions=(
        Condition("own", "accuracy with the task's own mean less without"),
        Condition("other", "with the own mean less with another task's", control=True),
        Condition("random", "with the own mean less with a random vector", control=True),
        Condition("null", "with the own mean less with Null's", control=True),
    ),
)
HARMS = Claim(
    "Fig. 20",
    "Null's mean lowers accuracy",
    "down to −0.15; −0.06 where tasks overlap",
    control=_STEERED,
    null="no change; or the change that any vector of this length makes",
    conditions=(
        Condition("null", "accuracy with Null's mean less without", BELOW),
        Condition("other", "with Null's mean less with another task's", BELOW, control=True),
        Condition("random", "with Null's mean less with a random vector", BELOW, control=True),
    ),
)
TOLD = Claim(
    "Table 1, Fig. 25",
    "saying the task raises decodability",
    "rises",
    control="the same gain at the first layer that was read, where little is inferred",
    null="no gain; or the gain that the words of the instruction alone give",
    conditions=(
        Condition("gain", "decodability with the instruction less without, each at its best layer"),
        Condition("beyond", "this gain less the gain at the first layer", control=True),
    ),
)
ANSWERED = Claim(
    "Table 1, Fig. 25",
    "saying the task raises accuracy",
    "rises",
    control="always giving each task's most common answer",
    null="no gain",
    conditions=(
        Condition("gain", "accuracy with the instruction less without"),
        Condition("guess", "accuracy with the instruction less that of the most common answer", control=True),
    ),
)
TUNED = Claim(
    "Table 1, Fig. 24",
    "tuning the first layers beats tuning the last",
    "first beats last",
    control="the model before tuning",
    null="no difference at equal budgets",
    conditions=(
        Condition("gap", "accuracy with the first layers tuned less with the last layers tuned"),
        Condition("gain", "accuracy with the first layers tuned less before tuning", control=True),
    ),
)
TOGETHER = Claim(
    "Figs. 5, 6, 21, 22",
    "decodability and accuracy rise together over checkpoints or models",
    "correlated",
    control="sources rearranged: the accuracies of one beside the decodabilities of another",
    null="within one number of shots, which source's accuracy is which does not matter",
    conditions=(
        Condition("prompts", "correlation within shot counts over sources, limits over prompts"),
        Condition("sources", "the same correlation, limits over sources"),
        Condition("p", "share of rearrangements with as large a correlation", BELOW, 0.05, control=True),
    ),
)
