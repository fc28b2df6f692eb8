"""The audit of a family's surface: chance where only a rule distinguishes the tasks, and by how much where not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control

from tiny_tokenizers import byte_level
from tv_lens.errors import InvalidArgument
from tv_lens.tasks import Task, family, null, surface_audit
from tv_lens.tasks.surface import CHARACTERS, FEATURES, LENGTHS, PLACE_IN_INPUT, PLACES, TOKENS, _holm

WORDS = [f"{a}{b}{c}" for a in "bdgklmn" for b in "aeiou" for c in "rst"]


def of(audit, feature: str, shots: int) -> float:
    table = audit.table.set_index(["feature", "shots"])
    return float(table.loc[(feature, shots), "accuracy"])


def test_balanced_families_are_at_chance_and_say_so():
    for name in ("positions", "mappings"):
        audit = surface_audit(family(name), byte_level(), n=200)
        within = audit.table[audit.table.feature != PLACE_IN_INPUT]
        assert (within.accuracy <= binom.ppf(0.999, 400, audit.chance) / 400).all(), name
        assert [caution for caution in audit.cautions if "the rule itself" not in caution] == []
    assert audit.tasks == ("next", "previous", "next-but-one", "null") and audit.chance == 0.25


def test_each_feature_is_found_where_it_gives_the_task_away():
    copies = Task("copy", [(f"{word} {word[::-1]}", word) for word in WORDS])
    tokenizer = byte_level(size=259)  # one token per letter

    def table(rule) -> dict[str, float]:
        audit = surface_audit(
            [copies, copies.replace(name="other", pairs=rule)], tokenizer, n=100, null=False, shots=(4,)
        )
        return {feature: of(audit, feature, 4) for feature in FEATURES}

    # Other letters, as many of them: the length says nothing.
    upper = table([(pair.input, pair.output.upper()) for pair in copies])
    assert upper[CHARACTERS] == upper[TOKENS] == 1.0 and upper[LENGTHS] < 0.7
    # The same letters in the same places, one more of each answer.
    longer = table([(pair.input, pair.output + pair.output) for pair in copies])
    assert longer[LENGTHS] == 1.0 and longer[PLACES] > 0.9
    # The same bag of answers in other places of their inputs.
    swapped = table([(f"{word[::-1]} {word}", word) for word in WORDS])
    assert swapped[PLACE_IN_INPUT] == 1.0 and swapped[CHARACTERS] < 0.7 and swapped[TOKENS] < 0.7


def test_a_family_that_gives_itself_away_is_told_by_how_much():
    audit = surface_audit(family("verbs"), byte_level(), n=80)
    assert of(audit, CHARACTERS, 10) > 0.8
    said = next(caution for caution in audit.cautions if caution.startswith("the characters of the shown answers"))
    row = audit.table[audit.table.feature == CHARACTERS].sort_values("accuracy").iloc[-1]
    assert f"named in {row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}] of prompts of {row.shots} shots" in said
    assert said.endswith("where guessing names it in 25%")
    text = repr(audit)
    assert text.startswith(
        "SurfaceAudit(present-past, present-gerund, present-third, null; 80 prompts each, chance 0.25)"
    )
    assert "  shots                      1     4    10\n  tokens" in text


def test_a_place_and_a_length_that_only_together_give_a_class_away_are_counted_together():
    """Each place from the beginning, and from the end, comes equally often; both at once is one class or the other."""
    long, short = ["a b c d", "b c d a", "c d a b", "d a b c"], ["a b c", "b c a", "c a b"]
    fill = [str(i) for i in range(40)]
    first = [(f"{x} {w}", x.split()[1]) for w in fill for x in long] + [
        (f"{x} {w}", x.split()[2]) for w in fill for x in short
    ]
    second = [(f"{x} {w}", x.split()[2]) for w in fill for x in long] + [
        (f"{x} {w}", x.split()[1]) for w in fill for x in short
    ]
    audit = surface_audit([Task("one", first), Task("two", second)], byte_level(), n=120, null=False, shots=(4,))
    assert of(audit, PLACE_IN_INPUT, 4) > 0.9 and of(audit, CHARACTERS, 4) < 0.7


def test_the_same_numbers_again_and_a_null_of_ones_own():
    members = family("positions")
    first, again = (surface_audit(members, byte_level(), n=20, shots=(1,)) for _ in range(2))
    assert first.table.equals(again.table)
    own = surface_audit(members, byte_level(), n=20, shots=(1,), null=null(members, seed=3).rename("none"))
    assert own.tasks[-1] == "none"


def test_limits_and_chances_by_scipy():
    audit = surface_audit(family("verbs"), byte_level(), n=25, shots=(1,), null=False)
    for row in audit.table.itertuples():
        assert row.low <= row.accuracy <= row.high and abs(row.accuracy * 39 - round(row.accuracy * 39)) < 1e-9
    # Holm never rejects what Benjamini and Hochberg keep, and equals Bonferroni for the smallest.
    p = np.array([0.01, 0.04, 0.03, 0.5])
    assert _holm(p).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert (_holm(p) >= false_discovery_control(p) - 1e-12).all()


def test_what_does_not_fit():
    members = family("positions")
    for tasks, options in [(members, dict(shots=(0, 1))), (members, dict(n=3)), (members, dict(shots=())),
                           (["antonym"], dict(null=False))]:  # fmt: skip
        with pytest.raises(InvalidArgument, match="two tasks or more, shown answers"):
            surface_audit(tasks, byte_level(), **options)
