"""The audit of a task, counted by hand."""

from __future__ import annotations

from tiny_tokenizers import byte_level
from tv_lens.tasks import Task


def test_the_audit_counts_by_hand():
    tokenizer = byte_level()
    audit = Task("t", [("ab", "zz zz"), ("cd", "zz qq"), ("ef", "7"), ("gh", "gh")]).audit(tokenizer)
    first = {y: tokenizer(f" {y}", add_special_tokens=False).input_ids for y in ("zz zz", "zz qq", "7", "gh")}
    assert first["zz zz"][0] == first["zz qq"][0]  # the space alone, or the space with a letter
    same = [ids[0] for ids in first.values()]
    assert audit.n == 4 and audit.task == "t" and audit.template == "qa"
    assert audit.single_token_share == sum(len(ids) == 1 for ids in first.values()) / 4
    assert audit.majority_rate == max(map(same.count, same)) / 4 and audit.majority_answer == "zz zz"
    assert audit.ambiguous_first_token_share == sum(same.count(token) > 1 for token in same) / 4
    assert audit.exact_majority_rate == audit.exact_copy_rate == 0.25


def test_the_audit_of_whole_words():
    tokenizer = byte_level(words=("went", "saw", "go", "see", "run", "ran"))
    audit = Task("t", [("go", "went"), ("see", "saw"), ("run", "ran"), ("saw", "saw")]).audit(tokenizer)
    assert audit.to_dict() == {
        "task": "t",
        "template": "qa",
        "n": 4,
        "single_token_share": 1.0,
        "ambiguous_first_token_share": 0.0,
        "majority_rate": 0.5,
        "majority_answer": "saw",
        "copy_rate": 0.25,
        "exact_majority_rate": 0.5,
        "exact_copy_rate": 0.25,
        "near_duplicates": {},
        "parted_share": 0.0,
    }
    assert repr(audit) == (
        "TaskAudit('t', 4 pairs, template 'qa')\n"
        "  single-token answers    100.0%\n"
        "  ambiguous first tokens    0.0%\n"
        "  majority guess           50.0%  ('saw'; exact 50.0%)\n"
        "  copied input             25.0%  (exact 25.0%)"
    )
    assert audit.cautions == [
        "always guessing 'saw' scores 0.50 by first token",
        "repeating the input scores 0.25 by first token",
    ]


def test_near_duplicates_are_counted_and_kept_in_one_split():
    tokenizer = byte_level()
    sums = Task("sum", [(f"{a} + {b}", str(a + b)) for a in range(1, 8) for b in range(1, 8)])
    audit = sums.audit(tokenizer)
    assert audit.near_duplicates == {"another order": 42} and audit.parted_share == 0.0
    assert "parted near-duplicates    0.0%  (42 another order)" in repr(audit)
    assert not any("near-duplicate" in caution for caution in audit.cautions)


def test_near_duplicates_that_cannot_be_kept_in_one_split_are_told():
    """Of eight bits, inputs with as many ones are each other's reorderings: nothing could be held out."""
    parity = Task(
        "parity", [(" ".join(f"{i:08b}"), "odd" if f"{i:08b}".count("1") % 2 else "even") for i in range(256)]
    )
    audit = parity.audit(byte_level())
    assert audit.near_duplicates == {"another order": 254} and audit.parted_share > 0.9
    assert any("have a near-duplicate in another split (254 another order)" in caution for caution in audit.cautions)
    # By hand: a task that says itself what lies together.
    apart = Task("sum", [(f"{a} + {b}", str(a + b)) for a in range(1, 8) for b in range(1, 8)], twins=())
    split_of = {pair.input: which for which in ("train", "dev", "test") for pair in apart.split(which)}
    swapped = [f"{b} + {a}" for a in range(1, 8) for b in range(1, 8)]
    expected = sum(split_of[pair.input] != split_of[twin] for pair, twin in zip(apart, swapped))
    assert apart.audit(byte_level()).parted_share == expected / 49 > 0
