"""Rows as token numbers beside image features that are computed once, and the loss on their answers.

The vision tower is frozen, as is usual when LLaVA models are finetuned, so that a picture's features never change. The
loss equals that of the whole model on what the product's encoder makes of the row; a test holds both to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from embedded.modelfiles import END, IMAGE
from embedded.sample import Image
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

IMAGE_TOKENS = 16
_LENGTH_STEP = 4  # rows of a batch have lengths within one such bucket


@dataclass(frozen=True)
class Rows:
    """tokens, is_answer: by row; picture_of: [row]; features: [picture, patch, hidden], in half precision."""

    tokens: list[Tensor]
    is_answer: list[Tensor]
    picture_of: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Sequence[int]) -> Rows:
        """Some of the rows; a row may be taken twice."""
        chosen = list(rows)
        return Rows(
            [self.tokens[i] for i in chosen],
            [self.is_answer[i] for i in chosen],
            self.picture_of[chosen],
            self.features,
        )


@dataclass(frozen=True)
class Batch:
    """tokens, is_answer, attention_mask: [row, position], padded on the right; features: [row, patch, hidden]."""

    tokens: Tensor
    is_answer: Tensor
    attention_mask: Tensor
    features: Tensor


def render(asked: str, answer: str) -> str:
    """The conversation as the chat template writes it, with the image's tag repeated."""
    return f"<|user|>\n{IMAGE * IMAGE_TOKENS}\n{asked}{END}\n<|assistant|>\n{answer}{END}\n"


def make_rows(tower: nn.Module, tokenizer: object, texts: Sequence[tuple[str, str]], pixels: Sequence[Image]) -> Rows:
    """Questions and answers with one picture each, as rows; the very same array is seen once."""
    places: dict[int, int] = {}
    picture_of = torch.tensor([places.setdefault(id(one), len(places)) for one in pixels])
    distinct = list({id(one): one for one in pixels}.values())
    ids = tokenizer([render(*text) for text in texts], add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assistant, end = tokenizer.convert_tokens_to_ids("<|assistant|>"), tokenizer.convert_tokens_to_ids(END)  # type: ignore[attr-defined]
    tokens = [torch.tensor(row) for row in ids]
    return Rows(tokens, [answer_marks(row, assistant, end) for row in tokens], picture_of, see(tower, distinct))


def answer_marks(tokens: Tensor, assistant: int, end: int) -> Tensor:
    """True at the answer and the token that ends its turn: what stands behind the assistant's tag and line break."""
    start = int((tokens == assistant).nonzero()[0]) + 2
    stop = start + int((tokens[start:] == end).nonzero()[0]) + 1
    places = torch.arange(len(tokens))
    return (places >= start) & (places < stop)


@torch.no_grad()
def see(tower: nn.Module, pixels: Sequence[Image], size: int = 64) -> Tensor:
    """The vision tower's features of pictures, [picture, patch, hidden], in half precision on the CPU."""
    tower.eval()
    device = next(tower.parameters()).device
    found = []
    for start in range(0, len(pixels), size):
        part = torch.from_numpy(np.stack(pixels[start : start + size])).to(device)
        inputs = part.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        found.append(tower(inputs, output_hidden_states=True).hidden_states[-1][:, 1:].half().cpu())
    return torch.cat(found)


def speed_up(model: nn.Module) -> None:
    """On a CPU the plain attention is 1.5 times as fast as the fused one, whose backward is slow for short rows."""
    if model.lm_head.weight.device.type == "cpu":  # type: ignore[union-attr]
        model.model.language_model.set_attn_implementation("eager")  # type: ignore[union-attr,operator]


def gather(rows: Rows, which: Sequence[int], pad: int = 0) -> Batch:
    """The rows as one batch."""
    padded = nn.utils.rnn.pad_sequence([rows.tokens[i] for i in which], batch_first=True, padding_value=pad)
    marks = nn.utils.rnn.pad_sequence([rows.is_answer[i] for i in which], batch_first=True)
    lengths = torch.tensor([len(rows.tokens[i]) for i in which])
    is_token = torch.arange(padded.shape[1])[None] < lengths[:, None]
    return Batch(padded, marks, is_token.long(), rows.features[rows.picture_of[list(which)]])


def plan_batches(rows: Rows, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """One epoch: every row once, rows of a batch alike in length, batches in random order."""
    order = rng.permutation(len(rows))
    buckets = np.array([len(rows.tokens[i]) // _LENGTH_STEP for i in order.tolist()])
    order = order[np.argsort(buckets, kind="stable")]
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    for number in rng.permutation(len(groups)):
        yield groups[number]


def embed(model: nn.Module, batch: Batch) -> Tensor:
    """The language model's inputs, the projected features in the places of the image's tags. [row, position, hidden]"""
    device = model.lm_head.weight.device  # type: ignore[union-attr]
    inner = model.model
    tokens = batch.tokens.to(device)
    embedded = inner.language_model.embed_tokens(tokens)  # type: ignore[union-attr,operator]
    projected = inner.multi_modal_projector(batch.features.to(device).float())  # type: ignore[union-attr,operator]
    is_image = tokens == model.config.image_token_id  # type: ignore[union-attr]
    return embedded.masked_scatter(is_image[..., None], projected.flatten(0, -2).to(embedded.dtype))


def half(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the processor computes in it; without AVX512-BF16 or AMX it takes 15 times as long."""
    is_fast = device.type != "cpu" or any(map(torch.cpu.get_capabilities().get, ("avx512_bf16", "amx_bf16")))
    return torch.autocast(device.type, torch.bfloat16, enabled=is_fast)


def answer_logits(model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits and targets at answer positions alone, rows and positions in order."""
    device = model.lm_head.weight.device  # type: ignore[union-attr]
    with half(device):
        inputs = embed(model, batch) if embedded is None else embedded
        # Padding stands on the right, so that the causal mask alone keeps it away from what counts.
        states = model.model.language_model(inputs_embeds=inputs, use_cache=False).last_hidden_state  # type: ignore[union-attr,operator]
        marks = batch.is_answer[:, 1:].to(device)
        return model.lm_head(states[:, :-1][marks]), batch.tokens[:, 1:].to(device)[marks]  # type: ignore[operator]


def answer_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of an answer token, in nats."""
    logits, targets = answer_logits(model, batch)
    return functional.cross_entropy(logits.float(), targets)


@torch.no_grad()
def exact_match(model: nn.Module, rows: Rows, size: int = 128) -> NDArray[np.bool_]:
    """For each row whether greedy decoding would give its answer exactly.

    It does if and only if every token of the answer, the end mark included, is the likeliest one after the answer's own
    start, so that one forward tells.
    """
    model.eval()
    is_right = np.zeros(len(rows), bool)
    for which in plan_batches(rows, size, np.random.default_rng(0)):
        batch = gather(rows, which.tolist())
        logits, targets = answer_logits(model, batch)
        row = batch.is_answer[:, 1:].nonzero()[:, 0].to(logits.device)
        wrong = torch.zeros(len(which), device=logits.device).index_add(0, row, (logits.argmax(-1) != targets).float())
        is_right[which] = (wrong == 0).cpu().numpy()
    return is_right
