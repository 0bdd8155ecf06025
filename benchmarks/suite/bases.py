"""The base models: Aya Vision's architecture in small, over the embedded model's frozen vision tower.

An 8 x 8 grid of patches becomes 16 image tokens (pixel shuffle), a Llama decoder answers. `python -m
benchmarks.suite.bases --out DIR --lessons DIR2 --shape small --minutes 25` trains projector and decoder by the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from embedded.build import SHIPPED
from embedded.clock import rate_at
from embedded.modelfiles import CHAT_TEMPLATE, END, IMAGE, PAD, PATCH, SPECIAL, generation_config
from embedded.sample import Image
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoTokenizer,
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    LlamaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from .cached import Rows, answer_loss, exact_match, gather, make_rows, plan_batches, see, speed_up
from .statements import CURRICULA, Curriculum, lessons, paraphrase

VOCABULARY = 2560
SHARES = {
    "emoji": 0.18, "scene": 0.16, "words": 0.2, "flags": 0.12, "digits": 0.1, "chart": 0.08, "maps": 0.06,
    "easyvqa": 0.06, "clipart": 0.04,
}  # fmt: skip
PER_PICTURE = 2  # lessons


@dataclass(frozen=True)
class Shape:
    """Sizes of a base's decoder."""

    hidden: int
    inner: int
    heads: int
    blocks: int


SHAPES = {
    "tiny": Shape(32, 64, 2, 4),
    "slim": Shape(112, 288, 4, 5),  # another model than small, to train what small has selected
    "small": Shape(128, 384, 4, 4),
    "medium": Shape(448, 1216, 8, 12),  # 32 M parameters, for a GPU
}


def main() -> None:
    """Train one base and write it as a Hugging Face folder with its card."""
    options = read_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer, rows = prepared(options.lessons, options.n_lessons, options.curriculum)
    model = load(options.resume)[0] if options.resume else make_model(SHAPES[options.shape], tokenizer)
    model.to(options.device)
    log = fit(model, tokenizer, rows, options)
    save(model, tokenizer, options.out)
    log |= {"shape": asdict(SHAPES[options.shape]), "parameters": sum(p.numel() for p in model.parameters())}
    (options.out / "training.json").write_text(json.dumps(log, indent=1) + "\n")
    (options.out / "README.md").write_text(card(log))


def train_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """A byte-level BPE of questions and answers as training pictures give them: every string can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(random.Random(seed)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=list(SPECIAL[2:]),
        model_max_length=512, clean_up_tokenization_spaces=False, padding_side="right",
    )  # fmt: skip


def _texts(rng: random.Random) -> Iterator[str]:
    from .sources import SOURCES

    for name in SHARES:
        for row in SOURCES[name].samples(rng, 1500, "train"):
            for turn in row.turns:
                yield from (turn.asked, turn.answer, paraphrase(turn.asked))
        yield from (lesson.answer for lesson in lessons(rng, name, 1500))


def make_model(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> AyaVisionForConditionalGeneration:
    """A new decoder and projector over the embedded model's vision tower, which stays frozen."""
    donor = LlavaForConditionalGeneration.from_pretrained(SHIPPED / "model").model.vision_tower
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = AyaVisionConfig(
        vision_config=donor.config, text_config=text, vision_feature_select_strategy="default", vision_feature_layer=-1,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE), tie_word_embeddings=True,
        alignment_intermediate_size=4 * shape.hidden,
    )  # fmt: skip
    model = AyaVisionForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(donor.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The embedded model's pictures, with a quarter of its image tokens."""
    pictures = LlavaProcessor.from_pretrained(SHIPPED / "model").image_processor
    return LlavaProcessor(
        pictures, tokenizer, patch_size=2 * PATCH, vision_feature_select_strategy="default", image_token=IMAGE,
        num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def save(model: AyaVisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The model with everything that loads it."""
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    generation_config(tokenizer).save_pretrained(folder)


def load(folder: Path, device: str = "cpu") -> tuple[AyaVisionForConditionalGeneration, PreTrainedTokenizerFast]:
    """A saved base with its tokenizer, the vision tower frozen."""
    model = AyaVisionForConditionalGeneration.from_pretrained(folder).to(device)
    model.model.vision_tower.requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder)


def prepared(folder: Path, n: int, curriculum: str) -> tuple[PreTrainedTokenizerFast, Rows]:
    """The tokenizer and `n` lessons with their image features, drawn and seen once and kept in the folder."""
    file = folder / f"lessons-{curriculum}.pt"
    if not file.exists():
        tokenizer = train_tokenizer()
        tower = LlavaForConditionalGeneration.from_pretrained(SHIPPED / "model").model.vision_tower
        rows = draw(tower, tokenizer, "train", n, CURRICULA[curriculum])
        tokenizer.save_pretrained(folder)
        torch.save({field.name: getattr(rows, field.name) for field in fields(Rows)}, file)
    stored = torch.load(file, weights_only=True)
    return AutoTokenizer.from_pretrained(folder), Rows(**stored)


def draw(tower: nn.Module, tokenizer: PreTrainedTokenizerFast, name: str, n: int, curriculum: Curriculum) -> Rows:
    """`n` lessons in the training mixture; the name tells them from other draws."""
    drawn = [
        lesson
        for source, share in SHARES.items()
        for lesson in lessons(
            random.Random(f"lessons/{name}/{source}"), source, round(n * share), "train", PER_PICTURE, curriculum
        )
    ]
    pixels: list[Image] = [lesson.pixels for lesson in drawn]
    return make_rows(tower, tokenizer, [(lesson.asked, lesson.answer) for lesson in drawn], pixels)


def fit(
    model: AyaVisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    options: argparse.Namespace,
) -> dict[str, object]:
    """Train against the clock; returns what happened."""
    speed_up(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.peak_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    held_out = draw(model.model.vision_tower, tokenizer, "held-out", 300, CURRICULA[options.curriculum])
    started = told = time.perf_counter()
    n_rows, step, mean_loss = 0, 0, 0.0
    for which in _endless(rows, options):
        gone = (time.perf_counter() - started) / (60 * options.minutes)
        if gone >= 1:
            break
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(options.peak_rate, gone, 0.03)
        loss = answer_loss(model, gather(rows, which.tolist()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, n_rows = step + 1, n_rows + len(which)
        mean_loss += (loss.item() - mean_loss) * max(0.01, 1 / step)
        if time.perf_counter() - told > 300:
            told = time.perf_counter()
            right = float(exact_match(model, held_out).mean())
            seconds = told - started
            print(
                f"{seconds:6.0f} s  step {step}  rows {n_rows}  loss {mean_loss:.3f}  held out {right:.3f}", flush=True
            )
            save(model, tokenizer, options.out)
    return {
        "curriculum": options.curriculum, "minutes": options.minutes, "seed": options.seed,
        "peak_rate": options.peak_rate, "steps": step, "rows": n_rows,
        "training_loss": round(mean_loss, 4), "held_out_exact_match": sight(model, held_out),
    }  # fmt: skip


def sight(model: AyaVisionForConditionalGeneration, rows: Rows) -> dict[str, float]:
    """Exact match with the right pictures, with those of other rows, and with grey ones."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows.picture_of)))
    grey = see(model.model.vision_tower, [np.full((64, 64, 3), 128, np.uint8)]).expand_as(rows.features)
    seen = {
        "right": rows,
        "swapped": replace(rows, picture_of=rows.picture_of[order]),
        "grey": replace(rows, features=grey),
    }
    return {name: round(float(exact_match(model, shown).mean()), 4) for name, shown in seen.items()}


def _endless(rows: Rows, options: argparse.Namespace) -> Iterator[NDArray[np.int64]]:
    """Batches of row numbers for ever, epoch after epoch."""
    rng = np.random.default_rng(options.seed)
    while True:
        yield from plan_batches(rows, options.batch, rng)


def card(log: dict[str, object]) -> str:
    """What the folder holds, in a few lines."""
    return f"""# A base model of the mini-VIF suite

Aya Vision's architecture in small: the embedded model's vision tower (frozen), a projector with pixel shuffle, a Llama
decoder. Trained on captions and on questions in other wordings than the suite's, about pictures apart from its pool and
test set. Curriculum "part" tells of part of the things only: the base knows what it sees and not yet how the suite
wants to be answered. "all" holds nothing back but the pictures.

    {json.dumps(log)}
"""


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--resume", type=Path, help="folder of a base to train on")
    parser.add_argument("--lessons", type=Path, required=True, help="folder of drawn lessons, made if missing")
    parser.add_argument("--curriculum", choices=sorted(CURRICULA), default="part", help="what the lessons tell of")
    parser.add_argument("--n-lessons", type=int, default=60_000)
    parser.add_argument("--peak-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
