"""From a command heard to what the trainer does: safe points, the hands, the way back."""
