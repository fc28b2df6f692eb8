"""Files that survive a killed process: whole or not at all, and what was computed goes on where it stopped."""
