"""Tiny models are fastest on one thread; set before torch is imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
