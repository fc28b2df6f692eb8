"""Points: independent draws, read where the position stands, and their classes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tiny_characters
from tv_lens.errors import InvalidArgument
from tv_lens.site import Site
from tv_lens.storage.configuration import digest
from tv_lens.task_vectors.representations import bag, classes_of, draw, read, sites_of
from tv_lens.tasks import family


def test_classes_have_no_twins_among_each_others_prompts(model):
    """Tasks over the same inputs draw the same inputs under one seed; points must not."""
    points = draw(model, classes_of(tiny_characters.telling(2), null=False)[0], shots=2, n=40)
    first, second = points.texts[:40], points.texts[40:]
    queries = [[text.rpartition(";")[2] for text in texts] for texts in (first, second)]
    assert sum(a == b for a, b in zip(*queries)) < 10
    assert len(set(queries[0])) > 15


def test_folders_of_earlier_versions_continue(model):
    """Their configuration has the digest of points that did not know places yet."""
    points = draw(model, classes_of(tiny_characters.telling(2), null=False)[0], shots=2, n=3)
    names = [one.name for one in dataclasses.fields(points) if one.name != "shown_places"]
    earlier = dataclasses.make_dataclass("Points", names)
    earlier.__module__, earlier.__qualname__ = type(points).__module__, "Points"
    assert digest(points.identity) == digest(earlier(*(getattr(points, name) for name in names)))


def test_draws_add_to_each_other(model):
    tasks = tiny_characters.pairings(3)
    few = draw(model, classes_of(tasks[:2], null=False)[0], shots=1, n=5)
    more = draw(model, classes_of(tasks, null=False)[0], shots=1, n=9)
    assert few.texts == more.texts[:5] + more.texts[9:14]
    longer = draw(model, classes_of(tasks[:2], null=False)[0], shots=3, n=5)
    assert [text.split(";")[0] for text in longer.texts] == [text.split(";")[0] for text in few.texts]


@pytest.mark.parametrize("pos, token", [(-1, -1), (-2, -2), (1, 1), ("y", -4), ("x", -6), ("query_x", -2)])
def test_a_position_is_read_where_it_stands_in_the_whole_prompt(model, pos, token):
    points = draw(model, classes_of(tiny_characters.pairings(2), null=False)[0], shots=3, n=6, pos=pos)
    site = Site("resid_post", 2)
    found = read(model, points, [site])[site]
    whole = model.capture(points.texts, [site], pos=token)[site]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


def test_the_answers_that_were_shown(model):
    points = draw(model, classes_of(tiny_characters.telling(2), null=False)[0], shots=3, n=2)
    for text, shown, tokens in zip(points.texts, points.shown_text, points.shown_tokens):
        assert shown == "".join(part[2] for part in text.split(";")[:-1])  # "a>1;b>0;c>1;d>"
        assert model.tokenizer.decode(tokens).replace(" ", "") == shown
    assert set(points.shown_text[0]) <= set("01") and set(points.shown_text[3]) <= set("23")
    assert bag(points.shown_text).tolist() == bag(points.shown_tokens).tolist()


def test_a_bag_counts():
    assert bag(["aab", "b", ""]).tolist() == [[2, 1], [0, 1], [0, 0]]
    assert bag([[], []]).tolist() == [[0], [0]]


def test_tasks_by_name_object_and_mapping():
    classes, absent = classes_of(["comparative", family("adjectives")[1]], null=True)
    assert list(classes) == ["comparative", "superlative", "null"] and absent == "null"
    classes, absent = classes_of({"one": "comparative", "two": tiny_characters.pairings(1)[0]}, null=False)
    assert list(classes) == ["one", "two"] and absent is None and classes["one"].name == "one"
    assert list(classes_of("antonym", null=True)[0]) == ["antonym", "null"]


def test_sites_in_layer_order_as_given(model):
    assert sites_of(model, "mlp_out", None) == [Site("mlp_out", layer) for layer in range(3)]
    assert sites_of(model, "mlp_out", 1) == [Site("mlp_out", 1)]
    with pytest.raises(InvalidArgument, match="named once each"):
        sites_of(model, "mlp_out", [1, 1])
