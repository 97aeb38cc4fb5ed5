"""What happened: the one hook that hears of every move, and what listens to it here: counts, operations and the log."""
