"""Self-contained HTML pages: one file, no request, everything from the data escaped. No torch here.

    html = render_page("report.html", package="delta_attnmask.reporting", styles=("report.css",), title="…", …)

A template extends "base.html" and fills its blocks `header`, `main` and `footer`. Styles and scripts are files beside
the templates; the policy in the page allows them by their hashes and nothing else, so that neither `style="…"` nor
`onclick="…"` works anywhere: use classes, and `addEventListener`.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from delta_attnmask.reporting import words
from delta_attnmask.storage import claim_output, write_text_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

HERE = "delta_attnmask.reporting"
_QUALITY = 70
_MIN_SIDE = 48  # px; below this nothing can be recognised
_FILTERS = {
    "count_of": words.count,
    "kind": words.name_kind,
    "names": words.join_names,
    "number": words.write_number,
    "percent": words.write_percent,
    "seconds": words.write_seconds,
    "share": words.write_share,
    "signed": words.write_signed,
}

Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]  # title, columns, rows


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    anchor: str
    title: str
    lead: str
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Thumbnail:
    """A picture inside the page. uri: `data:image/webp;base64,…`. width, height: px, for the place that it takes."""

    uri: str
    width: int
    height: int


def render_page(
    template: str,
    *,
    title: str,
    package: str = HERE,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **values: Any,
) -> str:
    """The HTML of a template, which finds its values, and `title`, by their names.

    package: where the templates, styles and scripts are, below `templates/`; the base page's come first.
    Raises jinja2.UndefinedError for a name that the template uses and nobody gave.
    """
    css = [read_asset("style.css"), *(read_asset(name, package) for name in styles)]
    js = [read_asset("script.js"), *(read_asset(name, package) for name in scripts)]
    values |= {
        "title": title,
        "policy": content_policy(css, js),
        "styles": [Markup(text) for text in css],  # the project's own files: they stay the bytes that were hashed
        "scripts": [Markup(text) for text in js],
        "version": version("delta-attnmask"),
    }
    html = make_environment(package).get_template(template).render(values)
    return html.encode("utf-8", "replace").decode()  # half a surrogate pair, which JSON may hold, becomes "?"


def claim_page(out: Path, inputs: Iterable[Path | None] = (), *, force: bool = False) -> None:
    """Refuse, before anything is computed, a file that no page can be written to; see `claim_output`."""
    claim_output(out, (".html", ".htm"), inputs, force=force)


def write_page(out: Path, html: str, *, force: bool = False) -> None:
    """Write a page, or write it again; SettingsError where `out` is no page of this tool, unless forced."""
    claim_page(out, force=force)
    write_text_atomically(out, html)


@cache
def make_environment(package: str = HERE) -> Environment:
    """Templates of a package and of this one; everything is escaped, and an unknown name is an error."""
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, HERE))]
    made = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= _FILTERS
    made.tests["numeric"] = words.is_number
    return made


@cache
def read_asset(name: str, package: str = HERE) -> str:
    """A style or script beside a package's templates."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8").strip()


def content_policy(styles: Iterable[str], scripts: Iterable[str]) -> str:
    """The Content-Security-Policy: nothing but these styles and scripts, and pictures that the page holds."""

    def allow(texts: Iterable[str]) -> str:
        return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)

    return (
        f"default-src 'none'; img-src data:; style-src {allow(styles)}; script-src {allow(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def embed_image(image: "Image", *, max_side: int = 256, max_bytes: int = 12_000) -> Thumbnail:
    """A picture of at most `max_bytes` before base64, its longer side at most `max_side` px; never enlarged.

    What takes more bytes is made smaller, to no less than 48 px.
    """
    while True:
        small, file = image.convert("RGB"), BytesIO()
        small.thumbnail((max_side, max_side))
        small.save(file, "webp", quality=_QUALITY)
        if file.tell() <= max_bytes or max_side <= _MIN_SIDE:
            uri = f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"
            return Thumbnail(uri, small.width, small.height)
        max_side = max(_MIN_SIDE, max_side * 3 // 4)
