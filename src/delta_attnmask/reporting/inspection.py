"""What an inspection adds to a sample's card: where the model looked, and which answer tokens the mask hurt."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Inspection:
    """A fragment below one row's card.

    html: what a template of `page.make_environment` gave, so that everything from the data in it is escaped. It may use
        the base page's classes and those of its own styles, but no `style` attributes: the page's policy refuses them.
    summary: one line that opens it, such as "Where the model looked".
    """

    html: Markup
    summary: str = "Where the model looked, and what the mask hid"
