"""`pilothouse doctor`: looks for the usual faults of a stack, and says of each what to do."""
