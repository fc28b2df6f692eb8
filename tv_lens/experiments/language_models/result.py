"""The result of the paper's experiments on a model: each claim with the paper's number, ours, and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import Claim, verdict_table
from tv_lens.experiments.folders import write_summary
from tv_lens.experiments.language_models.checkpoints import Comparison
from tv_lens.experiments.language_models.claims import (
    of_comparison,
    of_encoding,
    of_finetuning,
    of_instruction,
    of_prediction,
    of_steering,
)
from tv_lens.experiments.language_models.encoding import Encoding
from tv_lens.experiments.language_models.finetuning import Finetuning
from tv_lens.experiments.language_models.instruction import Instruction
from tv_lens.experiments.language_models.prediction import Prediction
from tv_lens.experiments.language_models.steering import Steering
from tv_lens.experiments.records import as_json, called
from tv_lens.experiments.reporting import report
from tv_lens.renamed import renamed_attributes
from tv_lens.results.sweep_parts import plain


@dataclass(frozen=True, eq=False, repr=False)
class PaperResult:
    """Every experiment that was run, by family.

    Args:
        model: name, fingerprint and sizes.
        settings: size, seed, shots, source of the sentences, width of an operand.
        encoding, prediction, steering, instruction, finetuning: results by family.
        comparison: the same on further models or checkpoints; None if none were given.
        left_out: why an experiment was not run, by experiment.
        seconds: wall time by stage, in this process.
        versions: the versions of Python and of the libraries.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    encoding: dict[str, Encoding]
    prediction: dict[str, Prediction]
    steering: dict[str, Steering] = field(default_factory=dict)
    instruction: dict[str, Instruction] = field(default_factory=dict)
    finetuning: dict[str, Finetuning] = field(default_factory=dict)
    comparison: Comparison | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def claims(self) -> list[Claim]:
        """The paper's claims, in the order of its figures."""
        return list(self._claims)

    @cached_property
    def _claims(self) -> list[Claim]:
        claims: list[Claim] = []
        for family in self.encoding:
            claims += of_encoding(family, self.encoding[family])
            claims += of_prediction(family, self.prediction[family])
            if family in self.steering:
                claims += of_steering(family, self.steering[family])
            if family in self.instruction:
                claims += of_instruction(family, self.instruction[family])
            if family in self.finetuning:
                claims += of_finetuning(family, self.finetuning[family])
            if self.comparison is not None and family in self.comparison.families:
                claims += of_comparison(family, self.comparison)
        return claims

    def table(self) -> pd.DataFrame:
        """The claims as a table."""
        return verdict_table(self.claims())

    def summary(self) -> dict[str, Any]:
        """Every number of the page, as JSON holds it."""
        numbers: dict[str, Any] = {
            "format": "tv_lens.paper/1",
            "model": self.model,
            "settings": self.settings,
            "claims": [one.record() for one in self.claims()],
            "encoding": {name: _rows(one.table()) for name, one in self.encoding.items()},
            "layers": {name: _rows(one.decodability.over_tasks().to_frame()) for name, one in self.encoding.items()},
            "controls": {name: _rows(one.decodability.controls.to_frame()) for name, one in self.encoding.items()},
            "beside": {name: _rows(one.decodability.beside().to_frame()) for name, one in self.encoding.items()},
            "maps": {
                name: {str(shots): _rows(drawn.to_frame()[["x", "y", "task"]]) for shots, drawn in one.maps.items()}
                for name, one in self.encoding.items()
            },
            "pairwise": {name: _rows(one.pairwise().reset_index()) for name, one in self.encoding.items()},
            "prediction": {
                name: {
                    "points": _rows(one.points()),
                    "fit": asdict(one.fit()),
                    "layer": one.layer,
                    "beyond_surface": asdict(one.fit(controlled=True)),
                    "within_shots": asdict(one.fit(within_shots=True)),
                }
                for name, one in self.prediction.items()
            },
            "steering": {name: _rows(one.effects().to_frame()) for name, one in self.steering.items()},
            "instruction": {name: _rows(one.table()) for name, one in self.instruction.items()},
            "finetuning": {name: _rows(one.table()) for name, one in self.finetuning.items()},
            "comparison": None
            if self.comparison is None
            else {
                "rows": _rows(self.comparison.table()),
                "failed": self.comparison.failed,
                "within_shots": {
                    name: self.comparison.within_shots(name)._asdict() for name in self.comparison.families
                },
            },
            "left_out": self.left_out,
            "seconds": self.seconds,
            "versions": self.versions,
        }
        return plain(as_json(numbers), "summary")

    def save(self, out: str | Path) -> Path:
        """Writes `paper.json` into a folder; returns its path. `tv.report(result)` is the page."""
        return write_summary(out, "paper.json", self.summary())

    def __repr__(self) -> str:
        lines = [
            f"  {one.figure} {one.family}: {one.claim}: {one.ours} (paper {one.paper}): {one.verdict}"
            for one in self.claims()
        ]
        return "\n".join([f"PaperResult on {called(self.model)}, size {self.settings['size']}", *lines])

    def _repr_html_(self) -> str:
        return report(self)._repr_html_()

    __getattr__ = renamed_attributes(page="tv.report(result)")


# ----


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON holds them: a number that is missing or infinite is None."""
    rows = table.round(6).astype(object).to_dict(orient="records")
    return [
        {str(key): None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
        for row in rows
    ]
