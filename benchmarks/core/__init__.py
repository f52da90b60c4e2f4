"""How much of the pure core one processor core carries."""
