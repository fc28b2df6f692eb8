"""The circuits that decode the vectors of tasks, tested on held-out queries, and their page."""
