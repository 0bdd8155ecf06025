"""What a model's processor makes of a row's images, bounded before it is called. No torch here.

The caps of `ImageLimits` count pixels as they are in the files. A processor may make far more of them: one that brings
the shorter side to 336 pixels makes 3,360,000 columns of an image of 1x10,000, and one that cuts tiles makes a dozen
pictures of a single pixel.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.images import ImageLimits

if TYPE_CHECKING:
    from PIL.Image import Image

_FEW = 8  # images, whatever becomes of them
_MAX_SIZES = 4096  # remembered

Size = tuple[int, int]


class Enlargement:
    """Refuses rows whose images become more than `max_pixels` together, or half of that as the model's inputs.

    The former take a byte a colour; the latter four, and processors hold them several times while they stack them.
    image_processor: of the model. process: gives the model's inputs for one image; may raise RowError.
    """

    def __init__(
        self,
        image_processor: Any,
        process: "Callable[[Image], Mapping[str, Any]]",
        max_pixels: int = ImageLimits().max_row_pixels,
    ) -> None:
        self._shorter_side = find_shorter_side(image_processor)
        self._makes_square = hasattr(image_processor, "pad_to_square")
        self._process = process
        self._max_pixels = max_pixels
        self._max_made = max_pixels // 2
        self._made: dict[Size, int] = {}

    def refuse(self, images: "Sequence[Image]") -> None:
        """Raise RowError for images that would take too much on their way through the processor, or behind it.

        The latter is looked at where there are many: one image of each size is processed, and remembered.
        """
        sizes = Counter(image.size for image in images)
        self._bound(sizes, self._count_resized, self._max_pixels)
        if len(images) > _FEW:
            self._bound(sizes, self._count_made, self._max_made)

    def _bound(self, sizes: Counter[Size], count: Callable[[Size], int], allowed: int) -> None:
        n_pixels = 0
        for size, n_images in sizes.items():
            n_pixels += n_images * count(size)
            if n_pixels > allowed:
                raise RowError(
                    ReasonCode.IMAGE_ENLARGED,
                    f"the model's processor would make more than {allowed} pixels of the row's images; "
                    f"one of {size[0]}x{size[1]} becomes {count(size)}",
                )

    def _count_resized(self, size: Size) -> int:
        """Before anything is cropped: as it is, with its shorter side at the target, or padded to a square."""
        short, long = sorted(size)
        enlarged = long * self._shorter_side**2 // short
        return max(short * long, enlarged, long**2 if self._makes_square else 0)

    def _count_made(self, size: Size) -> int:
        if size not in self._made:
            if len(self._made) >= _MAX_SIZES:
                self._made.clear()
            self._made[size] = self._measure(size)
        return self._made[size]

    def _measure(self, size: Size) -> int:
        from PIL import Image

        found = self._process(Image.new("RGB", size))
        n_values: int = sum(value.numel() for value in found.values() if value.is_floating_point())
        return n_values // 3


def find_shorter_side(image_processor: Any) -> int:
    """The pixels that every image's shorter side gets whatever its longer one becomes; 0 if there is no such rule."""
    size: Mapping[str, int] = getattr(image_processor, "size", None) or {}
    return 0 if size.get("longest_edge") else size.get("shortest_edge") or 0
