"""Results as figures and pages that need no network.

`plot(result)` gives a `Figure`; `page(title, sections)` writes several, with prose and tables, as one file.
"""

from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.html import Facts, Link, Note, Page, Section, Table, page

__all__ = ["Facts", "Figure", "Link", "Note", "Page", "Section", "Table", "page", "plot"]
