"""Random batches: an image, a prompt and an answer in every sample."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from benchmarks.scoring.models import Subject

ImageInputs = Callable[[Tensor], dict[str, Tensor]]  # which image each sample shows -> inputs of the forward
Batch = tuple[dict[str, Any], Tensor]
IMAGE_TOKEN, FIRST_TEXT = 1, 10
PATCH_VALUES = 3 * 2 * 14 * 14


def random_batch(
    subject: "Subject", batch_size: int, per_image: int, device: torch.device, dtype: torch.dtype, *, step: int = 0
) -> Batch:
    """Inputs and labels on the device. per_image: how many samples in a row show the same image.

    step: by how many tokens each sample is shorter than the one before, down to half of the text.
    """
    ids = torch.randint(FIRST_TEXT, subject.vocabulary, (batch_size, subject.n_tokens))
    ids[:, 1 : 1 + subject.n_image_tokens] = IMAGE_TOKEN
    missing = (torch.arange(batch_size) * step).clamp(max=(subject.n_text - subject.n_answer) // 2)
    ends, positions = subject.n_tokens - missing[:, None], torch.arange(subject.n_tokens)
    is_token = positions < ends
    ids = ids.masked_fill(~is_token, 0)
    labels = ids.masked_fill(~is_token | (positions < ends - subject.n_answer), -100)
    images = subject.images(torch.arange(batch_size) // per_image)
    inputs = {"input_ids": ids, "attention_mask": is_token.long(), **images}
    if subject.types:
        inputs[subject.types] = (ids == IMAGE_TOKEN).int()
    moved = {name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in inputs.items()}
    return moved, labels.to(device)


def llava_images(size: int) -> ImageInputs:
    def images(shown: Tensor) -> dict[str, Tensor]:
        distinct = torch.randn(int(shown.max()) + 1, 3, size, size)
        return {"pixel_values": distinct[shown]}

    return images


def qwen_images(grid: tuple[int, int]) -> ImageInputs:
    """grid: rows and columns of patches; two by two of them make a token."""

    def images(shown: Tensor) -> dict[str, Tensor]:
        distinct = torch.randn(int(shown.max()) + 1, grid[0] * grid[1], PATCH_VALUES)
        return {
            "pixel_values": distinct[shown].flatten(0, 1),
            "image_grid_thw": torch.tensor([[1, *grid]]).expand(len(shown), -1).contiguous(),
        }

    return images
