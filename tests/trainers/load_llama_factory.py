"""What LLaMA-Factory's own loader makes of a data set: run by the Python that it is installed for, not by ours.

python load_llama_factory.py MODEL DATASET_DIR DATASET MEDIA_DIR SAVED, and what is to be compared goes to SAVED.
"""

import json
import sys
import tempfile
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(model: str, folder: str, name: str, media: str, saved: str) -> None:
    with tempfile.TemporaryDirectory() as out:
        arguments = {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": model,
            "template": "qwen2_vl",
            "dataset": name,
            "dataset_dir": folder,
            "media_dir": media,
            "output_dir": out,
            "overwrite_cache": True,
            "report_to": "none",
        }
        model_args, data_args, training_args, _, _ = get_train_args(arguments)
        loaded = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
        rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)["train_dataset"]
        seen = [{"input_ids": row["input_ids"], "labels": row["labels"], "images": row["images"] or []} for row in rows]
    Path(saved).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
