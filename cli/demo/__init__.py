"""The demo behind `pilothouse demo`: three small trainings, and the proof that the loop closed."""
