"""How fast scoring is, beside a plain forward and the naive reference: `python -m benchmarks.scoring`."""
