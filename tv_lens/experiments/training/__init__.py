"""What a network learns over training: losses, decodability, causes, timing, and the page of it."""
