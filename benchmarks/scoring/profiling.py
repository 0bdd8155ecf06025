"""Which GPU kernels scoring spends its time in: `python -m benchmarks.scoring.profiling qwen2-vl-2b 8 --compile`."""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.scoring.inputs import random_batch
from benchmarks.scoring.models import SUBJECTS, build
from benchmarks.scoring.runs import plain_forward
from delta_attnmask.modeling.load import compile_blocks
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.settings import MaskSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=SUBJECTS)
    parser.add_argument("batch_size", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain", action="store_true", help="the plain forward instead")
    options = parser.parse_args()
    device, subject = torch.device("cuda"), SUBJECTS[options.model]
    model = build(subject, device, torch.bfloat16)
    batch = random_batch(subject, options.batch_size, 1, device, torch.bfloat16)
    if options.compile:
        compile_blocks(model)
    for _ in range(3):
        plain_forward(model, batch) if options.plain else score_batch(model, *batch, MaskSettings.paper())
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        plain_forward(model, batch) if options.plain else score_batch(model, *batch, MaskSettings.paper())
        torch.cuda.synchronize()
    averages = found.key_averages()
    print(averages.table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=70))
    print(averages.table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=70))


if __name__ == "__main__":
    main()
