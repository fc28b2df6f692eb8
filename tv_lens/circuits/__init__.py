"""Circuits: which edges of a model carry a behaviour; they are discovered, tested and compared here."""

from tv_lens.circuits import truth
from tv_lens.circuits.acdc import ACDC
from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.comparison import Comparison, compare
from tv_lens.circuits.contrast import CircuitQuestion, Contrast, Projection
from tv_lens.circuits.discovery import discover
from tv_lens.circuits.eap import EAP, EAPIG
from tv_lens.circuits.evaluation import completeness, faithfulness, minimality
from tv_lens.circuits.exact_edges import ExactEdges
from tv_lens.circuits.export import to_attribution_graph, to_dot, to_graphml
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.nodes import Position
from tv_lens.renamed import renamed_names as _renamed_names

__all__ = [
    "ACDC",
    "EAP",
    "EAPIG",
    "Circuit",
    "CircuitQuestion",
    "Comparison",
    "Contrast",
    "EdgeScores",
    "ExactEdges",
    "Graph",
    "Position",
    "Projection",
    "compare",
    "completeness",
    "discover",
    "faithfulness",
    "minimality",
    "to_attribution_graph",
    "to_dot",
    "to_graphml",
    "truth",
]

__getattr__ = _renamed_names(__name__, Setting="tv.circuits.CircuitQuestion")
