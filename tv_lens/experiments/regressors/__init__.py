"""What patches, ablations and circuits show on a network that regresses in context."""
