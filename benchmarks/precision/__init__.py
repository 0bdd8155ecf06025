"""What half precision does to the scores: `python -m benchmarks.precision`."""
