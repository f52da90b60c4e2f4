"""What is measured and not only tested: each module is a program of its own, `python -m benchmarks.NAME`."""
