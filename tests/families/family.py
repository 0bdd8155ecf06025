"""A family: a tiny random model of one Hugging Face class, and two samples of different length for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zlib import crc32

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig

Padding = Literal["right", "left", "none"]
Inputs = dict[str, Any]

PAD, BOS, EOS, IMAGE_START, IMAGE_END, IMAGE = range(6)
FIRST_TEXT, VOCABULARY = 16, 128
IGNORED = -100

# (is it an answer?, number of tokens) of each run of text; the image stands after the first run.
SAMPLES = (
    ((False, 4), (False, 6), (True, 5), (False, 4), (True, 3)),
    ((False, 3), (False, 3), (True, 4), (False, 2), (True, 2)),
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one configuration is built and fed.

    layers: the path of the decoder's blocks in the model.
    image: the placeholder tokens of one image, with what the template puts around them.
    vision: what the forward takes for the image of sample i; joined over the samples along the first dimension.
    aligned: what the forward takes beside input_ids, one value a token, from input_ids and attention_mask.
    blocks: the blocks that the matrix masks. paddings: the ones that the matrix tries.
    self_attentions: how many of the blocks attend to the sequence itself; all if None.
    eager: the implementation of the reference, where plain "eager" changes more than the decoder.
    moved: settings.block → the block that is masked instead.
    refused: settings.block → a word of the reason why that block is refused.
    refusal: a word of the reason why the family is refused as a whole.
    broken_in: versions of transformers whose own forward of the class fails, with or without this package.
    """

    name: str
    kind: Literal["vlm", "text"]
    hf_class: str
    config: dict[str, Any] | Callable[[], PreTrainedConfig]
    layers: str = "model.layers"
    image: Sequence[int] = ()
    vision: Callable[[int], Inputs] = lambda sample: {}
    aligned: Callable[[Tensor, Tensor], Inputs] = lambda input_ids, attention_mask: {}
    blocks: tuple[int, int] = (-2, 1)
    paddings: tuple[Padding, ...] = ("right", "left")
    self_attentions: int | None = None
    eager: str | dict[str, str] = "eager"
    moved: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    refusal: str = ""
    broken_in: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        if self.is_broken:
            object.__setattr__(self, "refusal", "own forward fails")
            object.__setattr__(self, "notes", f"its own forward fails in transformers {transformers.__version__}")

    @property
    def is_broken(self) -> bool:
        return transformers.__version__ in self.broken_in

    @property
    def is_installed(self) -> bool:
        return hasattr(transformers, self.hf_class)

    def build(self) -> nn.Module:
        """The model in fp32, with the same random weights each time."""
        model_class = getattr(transformers, self.hf_class)
        torch.manual_seed(0)
        config = self.config() if callable(self.config) else model_class.config_class(**self.config)
        model = model_class(config).float().eval()
        randomize(model, seed=crc32(self.name.encode()))
        return model

    def inputs(self, padding: Padding = "right", samples: Sequence[int] = (0, 1)) -> tuple[Inputs, Tensor]:
        """The forward's dict and the unshifted labels; "none" takes one sample."""
        rows = [conversation(sample, self.image) for sample in samples]
        n_longest = max(len(ids) for ids, _ in rows)
        if padding == "none" and len(rows) > 1:
            raise ValueError('padding="none" takes one sample')
        input_ids = torch.tensor([padded(ids, PAD, n_longest, padding) for ids, _ in rows])
        labels = torch.tensor([padded(labels, IGNORED, n_longest, padding) for _, labels in rows])
        attention_mask = torch.tensor([padded([1] * len(ids), 0, n_longest, padding) for ids, _ in rows])
        images = [self.vision(sample) for sample in samples]
        joined = {name: torch.cat([image[name] for image in images]) for name in images[0]}
        aligned = self.aligned(input_ids, attention_mask)
        return {"input_ids": input_ids, "attention_mask": attention_mask, **joined, **aligned}, labels


def conversation(sample: int, image: Sequence[int]) -> tuple[list[int], list[int]]:
    """The token ids and labels of one sample."""
    generator = torch.Generator().manual_seed(100 + sample)
    ids, labels = [BOS], [IGNORED]
    for n_run, (is_answer, n_tokens) in enumerate(SAMPLES[sample]):
        run = torch.randint(FIRST_TEXT, VOCABULARY, (n_tokens,), generator=generator).tolist()
        run += image if n_run == 0 else []
        ids += run
        labels += run if is_answer else [IGNORED] * len(run)
    return ids, labels


def padded(row: list[int], value: int, length: int, padding: Padding) -> list[int]:
    pads = [value] * (length - len(row))
    return pads + row if padding == "left" else row + pads


def pixels(sample: int, *shape: int) -> Tensor:
    """Random pixel values, another picture for each sample."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(200 + sample))


def randomize(model: nn.Module, seed: int) -> None:
    """Weights large enough that attention is far from uniform and masking changes the loss."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.data = noise * 1.5 * parameter.shape[-1] ** -0.5
        else:
            parameter.data += 0.1 * noise


TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def text(model_type: str | None = None, **changes: Any) -> dict[str, Any]:
    """The text configuration that most models share, with changes."""
    return TEXT | ({"model_type": model_type} if model_type else {}) | changes
