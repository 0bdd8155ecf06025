"""The things that the emoji sources can draw and name: 148 concepts in 20 categories.

An entry is `label`, or `label=emojibase label`, or `label=emojibase label=fxemoji name`. A leading `~` says that
the label takes no article ("this is bread"). Concepts that look alike at 24 pixels were left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

TABLE: dict[str, str] = {
    "animal": "monkey=monkey face; dog=dog face; cat=cat face; horse=horse face; cow=cow face; pig=pig face; elephant; "
    "rabbit=rabbit face=bunny; panda=panda=pandaface; frog; turtle; snake",
    "bird": "rooster; chick=baby chick; penguin; owl; duck; parrot",
    "sea animal": "whale=spouting whale=spurtingwhale; dolphin; fish=tropical fish; octopus; shell=spiral shell; crab",
    "bug": "snail; ant; bee=honeybee; ladybug=lady beetle; spider; butterfly",
    "plant": "rose; sunflower; tulip; cactus; palm tree; pine tree=evergreen tree=evergreen; mushroom; "
    "clover=four leaf clover",
    "fruit": "grape=grapes; watermelon; lemon; banana; pineapple; apple=red apple; pear; cherry=cherries=cherries; "
    "strawberry",
    "vegetable": "tomato; eggplant=eggplant=aubergine; ear of corn=ear of corn=earofmaize; carrot; ~broccoli",
    "food": "hamburger; pizza=pizza=sliceofpizza; ~bread; egg=cooking=cooking; donut=doughnut; cookie; birthday cake; "
    "ice cream=soft ice cream; ~french fries",
    "drink": "~coffee=hot beverage; ~wine=wine glass; ~beer=beer mug; cocktail=cocktail glass; baby bottle",
    "vehicle": "car=automobile; bus; taxi; truck=delivery truck; tractor; bicycle; motorcycle; sailboat; airplane; "
    "helicopter; rocket",
    "building": "hospital; factory; castle=castle=europeancastle; church; tent; bank",
    "sport": "soccer ball; baseball; basketball=basketball=basketballandhoop; football=american football; ~bowling",
    "instrument": "saxophone; trumpet; guitar; piano=musical keyboard; violin",
    "tool": "hammer; wrench; ~scissors=scissors=blackscissors; key; syringe; microscope",
    "clothing": "~glasses; ~sunglasses=sunglasses=darksunglasses; necktie=necktie=tie; shirt=t-shirt=mansshirt; "
    "~jeans; dress; handbag; backpack=backpack=schoolsatchel; high heel=high-heeled shoe=heels; crown; top hat",
    "device": "telephone=telephone=blacktelephone; laptop=laptop=personalcomputer; printer; television; camera; radio; "
    "battery; light bulb; watch",
    "furniture": "door; toilet; bathtub; candle; bed; chair",
    "toy": "die=game die=gamedie; balloon; gift=wrapped gift=present; trophy; teddy bear; kite",
    "sky": "sun=sun=whitesun; moon=crescent moon; star=star=whitemediumstar; cloud; rainbow; snowflake; "
    "umbrella=umbrella with rain drops=umbrellawithraindrops; snowman=snowman without snow; ~fire",
    "stationery": "pencil=pencil=lowerleftpencil; blue book; green book; envelope; paperclip; pushpin; briefcase; "
    "newspaper",
}

# Categories whose members somebody could fairly count to one another ("is an owl an animal?"): never asked across.
FAMILIES: tuple[frozenset[str], ...] = (
    frozenset({"animal", "bird", "sea animal", "bug"}),
    frozenset({"food", "fruit", "vegetable", "drink", "plant", "sea animal"}),
    frozenset({"toy", "sport"}),
    frozenset({"tool", "stationery", "device", "furniture", "instrument"}),
    frozenset({"building", "furniture"}),
)

# The part that many-thing scenes draw from: distinct outlines and colours also at 24 pixels.
SCENE_CATEGORIES = ("animal", "fruit", "vehicle", "food", "instrument", "clothing", "sport", "sky", "bird", "tool")

IRREGULAR_PLURALS = {"die": "dice", "fish": "fish"}


@dataclass(frozen=True, slots=True)
class Concept:
    """A nameable thing; `emoji` is its emojibase label, `fx_name` its fxemoji icon (guessed when empty)."""

    label: str
    category: str
    emoji: str
    fx_name: str
    is_mass: bool

    @property
    def with_article(self) -> str:
        """`a dog`, `an apple`, `bread`."""
        return self.label if self.is_mass else article(self.label)

    @property
    def plural(self) -> str:
        """`dogs`, `mice`, `bread`."""
        return self.label if self.is_mass else pluralise(self.label)


def article(noun: str) -> str:
    """The noun with `a` or `an` before it."""
    return f"{'an' if noun[0] in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"


def pluralise(noun: str) -> str:
    """English plural of a label of the table."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun == "ear of corn":
        return "ears of corn"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun == "tomato":
        return noun + "es"
    return noun + "s"


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts in the table's order."""
    return tuple(_parse(entry, category) for category, line in TABLE.items() for entry in line.split(";"))


@cache
def by_label() -> dict[str, Concept]:
    """Concepts by their label; labels are unique."""
    table = {concept.label: concept for concept in concepts()}
    assert len(table) == len(concepts()), "two concepts share a label"
    return table


def related(a: str, b: str) -> bool:
    """True when the two categories overlap in everyday use, so that asking across them would be unfair."""
    return a == b or any(a in family and b in family for family in FAMILIES)


def _parse(entry: str, category: str) -> Concept:
    parts = entry.strip().split("=")
    label = parts[0].removeprefix("~")
    emoji = parts[1] if len(parts) > 1 else label
    return Concept(label, category, emoji, parts[2] if len(parts) > 2 else "", parts[0].startswith("~"))
