"""What ms-swift's own loader makes of a data set: run by the Python that it is installed for, not by ours.

python load_ms_swift.py MODEL DATASET SAVED, with ROOT_IMAGE_DIR set; what is to be compared goes to SAVED.
"""

import json
import sys
from pathlib import Path

from swift import get_processor, get_template, load_dataset


def main(model: str, data: str, saved: str) -> None:
    template = get_template(get_processor(model, model_type="qwen2_vl", download_model=False), template_type="qwen2_vl")
    template.set_mode("train")
    rows, _ = load_dataset(data, load_from_cache_file=False, strict=True)
    seen = []
    for row in rows:
        found = template.encode(row)
        grid = found.get("image_grid_thw")
        seen.append(
            {
                "input_ids": list(found["input_ids"]),
                "labels": list(found["labels"]),
                "images": [image["path"] for image in row.get("images") or []],
                "grid": [] if grid is None else grid.tolist(),
                "pixels": 0.0 if grid is None else float(found["pixel_values"].double().sum()),
            }
        )
    Path(saved).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
