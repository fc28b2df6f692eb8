"""Files that survive a killed process: each is whole or absent, and an interrupted computation can be resumed."""
