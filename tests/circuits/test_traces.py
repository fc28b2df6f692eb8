"""Traces hold what a plain capture holds, of one side or of both in one pass, between the source and the target."""

from __future__ import annotations

import pytest
import torch

from circuit_cases import CASES, passes
from tv_lens.site import Site


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "phi"])
def test_a_trace_is_what_a_capture_reads(tiny_model, family, case):
    made = passes(tiny_model(family), case)
    (chunk,) = made.chunks()
    for side in ("clean", "corrupted"):
        trace = getattr(chunk, side)
        sites = {site for layer in made.layers for site in _sites(layer, made.slots)}
        with made.model.intervene(*made.edits(side)):
            held = made.model.capture(made.tokens(side, chunk.rows.tolist()), sorted(sites, key=str))
        for site, expected in held.items():
            found = trace.z[site.layer] if site.component == "z" else trace.at(site.at(None))
            torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-4)
    if made.graph.source is not None:
        assert min(trace.pre) == made.graph.source.layer


def _sites(layer: int, slots: tuple[int, ...]) -> list[Site]:
    return [Site(name, layer, pos=slots) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post", "z")]


def test_a_part_of_a_chunk_holds_its_examples(tiny_model):
    made = passes(tiny_model("llama"), "pairs")
    (chunk,) = made.chunks()
    part = chunk.of([2, 0])
    assert part.rows.tolist() == [2, 0]
    torch.testing.assert_close(part.clean.pre[1], chunk.clean.pre[1][[2, 0]])
    torch.testing.assert_close(part.corrupted.read_by(1, "mlp"), chunk.corrupted.read_by(1, "mlp")[[2, 0]])
