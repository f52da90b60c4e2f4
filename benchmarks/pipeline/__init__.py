"""What the whole way carries: from ranks through the broker to decisions, back to the trainer, and into the archive."""
