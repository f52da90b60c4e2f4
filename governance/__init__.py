"""What events mean and what must follow: conditions, phase, policy, bounds, decisions. Pure."""
