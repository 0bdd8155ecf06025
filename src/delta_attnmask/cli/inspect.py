"""`delta-attnmask inspect`: where the model looked in single rows, and what the mask did to their answers."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.artifacts import RunFolder, write_text_atomically
from delta_attnmask.cli.chosen import choose_settings
from delta_attnmask.cli.recorded import recorded_option
from delta_attnmask.cli.tables import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.settings import Exclude, MaskSettings, Order, Queries, Replacement, Tokens

if TYPE_CHECKING:
    from delta_attnmask.inspecting.inspection import RowInspection


def inspect(
    *,
    row: Annotated[list[int], Parameter(consume_multiple=True)],
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("inspect.html"),
    run: Path | None = None,
    model: str | None = None,
    data: Path | None = None,
    images: Path | None = None,
    settings: str | None = None,
    queries: Queries | None = None,
    tokens: Tokens | None = None,
    fraction: float | None = None,
    block: int | None = None,
    replacement: Replacement | None = None,
    order: Order | None = None,
    exclude: Exclude | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
) -> int:
    """Write a page that shows where the model looked in single rows, and what the mask did to their answers.

    Parameters
    ----------
    row
        Numbers of the rows, from 0, as the scores have them.
    out
        HTML file to write; it needs no network.
    run
        Folder that `score` made: its model, data and settings are taken where nothing else is given.
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Conversations, as for `score`.
    images
        Folder below which the rows' image paths lie.
    settings
        paper, relative, or a folder that `calibrate` made; if not given, those of the run, or else relative. Single
        options change what this gives.
    queries
        Whose attention counts.
    tokens
        Which tokens may be masked.
    fraction
        Share of those that is masked, 0 to 1.
    block
        Decoder block whose output is masked; negative counts from the end.
    replacement
        What a masked state becomes.
    order
        Which tokens are masked first.
    exclude
        Tokens that are never masked.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps or balanced.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub; with --run, the run's own if not given.
    """
    single = {
        "queries": queries,
        "tokens": tokens,
        "fraction": fraction,
        "block": block,
        "replacement": replacement,
        "order": order,
        "exclude": exclude,
    }
    overrides: dict[str, Any] = {name: value for name, value in single.items() if value is not None}
    MaskSettings(**overrides)  # faults are told before anything large is imported or loaded
    chosen = _Source.of(run, model, data, images)
    dataset = Dataset(
        chosen.data,
        chosen.images,
        image_limits=ImageLimits(allow_outside=allow_outside),
        format=format or chosen.format,
    )

    from delta_attnmask.inspecting.inspect import Inspector
    from delta_attnmask.inspecting.page import render_inspections
    from delta_attnmask.modeling.load import load_model

    loaded = load_model(chosen.model, dtype=dtype, device=device, revision=revision or chosen.revision)
    if settings is None and chosen.settings is not None:
        mask = replace(chosen.settings, **overrides)
    else:
        mask = choose_settings(settings or "relative", overrides, loaded, dataset, None, batch_tokens=8192).mask
    inspections = Inspector(loaded, dataset, mask).inspect_rows(row)
    html = render_inspections(inspections, model=chosen.model, data=str(chosen.data))
    write_text_atomically(out, html)
    for inspection in inspections:
        print(_line(inspection))
    print(f"Wrote {out}")
    return 2 if all(inspection.reason for inspection in inspections) else 0


@dataclass(frozen=True)
class _Source:
    """What is inspected. settings, revision: those of the run; None without one."""

    model: str
    data: Path
    images: Path | None
    format: str | None
    settings: MaskSettings | None
    revision: str | None = None

    @classmethod
    def of(cls, run: Path | None, model: str | None, data: Path | None, images: Path | None) -> "_Source":
        """What the options name, and for what they leave out what the run was made of."""
        if run is None:
            if model is None or data is None:
                raise SettingsError("model and data are needed; give --model and --data, or --run with a run's folder")
            return cls(model, data, images, None, None)
        manifest = RunFolder.open(run).manifest
        known = {field.name for field in fields(MaskSettings)}
        mask = {name: value for name, value in manifest.settings.items() if name in known}
        return cls(
            model=model or manifest.model,
            data=data or Path(manifest.data),
            images=images or (Path(manifest.images) if manifest.images else None),
            format=None if data else manifest.format,
            settings=MaskSettings.from_dict(mask),
            revision=None if model else recorded_option(manifest.command, "--revision"),
        )


def _line(inspection: "RowInspection") -> str:
    """What a row's inspection found, for the terminal."""
    if inspection.reason:
        return f"row {inspection.row}: can't be inspected: {printable(inspection.reason)}"
    return (
        f"row {inspection.row}: loss {inspection.loss:.3f}, masked {inspection.masked_loss:.3f}, "
        f"delta {inspection.delta:+.3f}; {inspection.n_masked} of {inspection.n_tokens} tokens masked"
    )
