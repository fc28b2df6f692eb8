"""Circuits in shards: the numbers of circuits that are run at once, whatever the shards."""

from __future__ import annotations

import pytest
import torch

from circuit_cases import CASES, passes
from tv_lens.circuits import circuit_runs
from tv_lens.circuits.circuit_runs import circuits_in_shards
from tv_lens.circuits.patched import run_circuits
from tv_lens.errors import RunMismatch
from tv_lens.storage.run_folder import RunFolder
from tv_lens.storage.runner import Work


@pytest.mark.parametrize("case", CASES)
def test_shards_of_circuits_are_the_circuits(case, tiny_model, tmp_path, monkeypatch):
    made = passes(tiny_model("llama"), case)
    masks = torch.rand(7, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.7
    expected = run_circuits(made, masks, progress=False)
    monkeypatch.setattr(circuit_runs, "TOKENS_A_SHARD", 2 * 3 * len(made.slots))  # two circuits of three examples
    found, _ = circuits_in_shards(made, masks, Work("faithfulness", {}))
    kept, about = circuits_in_shards(made, masks, Work("faithfulness", {}, tmp_path))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert torch.equal(found, kept) and about == {"folder": str(tmp_path)} and RunFolder(tmp_path).total == 4
    with pytest.raises(RunMismatch, match="circuits.sha256"):
        circuits_in_shards(made, ~masks, Work("faithfulness", {}, tmp_path))
