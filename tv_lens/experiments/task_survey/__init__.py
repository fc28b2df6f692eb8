"""Where a model encodes tasks, what their vectors do, and the report of it."""
