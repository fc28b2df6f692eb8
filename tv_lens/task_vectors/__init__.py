"""Task vectors: how they are extracted, what they do, and how well the task can be read from the residual stream."""
