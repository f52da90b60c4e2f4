"""What failures do to a training loop, by logger: `python -m benchmarks.failures` (`make bench-sdk-failures`)."""
