"""What a run runs in and on, found without being told, and what it says of itself."""
