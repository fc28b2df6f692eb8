"""Results as figures and pages that need no network.

`plot(result)` gives a `Figure`; `page(title, sections)` writes several, with prose and tables, as one file.
"""

from tv_lens.viz.attention import plot_attention
from tv_lens.viz.circuit import plot_circuit
from tv_lens.viz.decodability import plot_decodability
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.html import Facts, Link, Note, Page, Section, Table, page
from tv_lens.viz.maps import plot_map
from tv_lens.viz.results import (
    plot_audit,
    plot_comparison,
    plot_edge_scores,
    plot_scores,
    plot_surface_audit,
    plot_universal_heads,
    plot_vector,
)
from tv_lens.viz.scrubber import plot_training
from tv_lens.viz.sweeps import plot_sweep

__all__ = [
    "Facts",
    "Figure",
    "Link",
    "Note",
    "Page",
    "Section",
    "Table",
    "page",
    "plot",
    "plot_attention",
    "plot_audit",
    "plot_circuit",
    "plot_comparison",
    "plot_decodability",
    "plot_edge_scores",
    "plot_map",
    "plot_scores",
    "plot_surface_audit",
    "plot_sweep",
    "plot_training",
    "plot_universal_heads",
    "plot_vector",
]
