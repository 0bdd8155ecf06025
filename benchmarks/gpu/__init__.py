"""What only a GPU can show, measured against its goals in three parts: `python -m benchmarks.gpu --part 1`."""
