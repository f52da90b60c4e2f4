"""Does control help? The same trainings with and without us, and under what others do, on real PyTorch."""
