"""The things that the emoji sources can draw and name: about 270 concepts in 20 categories.

An entry is `label`, or `label=emojibase label`, or `label=emojibase label=fxemoji name`. A leading `~` says that
the label takes no article ("this is bread"). Concepts that look alike at 24 pixels were left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

TABLE: dict[str, str] = {
    "animal": "monkey=monkey face; gorilla; dog=dog face; wolf=wolf=wolfface; fox; raccoon; cat=cat face; lion; tiger=tiger face; "
    "horse=horse face; unicorn; zebra; deer; cow=cow face; pig=pig face; goat; camel=two-hump camel=bactriancamel; giraffe; "
    "elephant; rhinoceros; mouse=mouse face; hamster=hamster=hampster; rabbit=rabbit face=bunny; hedgehog; bat; bear; koala; "
    "panda=panda=pandaface; kangaroo; frog; crocodile; turtle; lizard; snake; dragon=dragon face=dragonhead",
    "bird": "rooster; chick=baby chick; penguin; eagle; duck; swan; owl; flamingo; peacock; parrot; turkey",
    "sea animal": "whale=spouting whale=spurtingwhale; dolphin; fish=tropical fish; shark; octopus; crab; lobster; shrimp; squid; "
    "blowfish; shell=spiral shell",
    "bug": "snail; butterfly; ant; bee=honeybee; ladybug=lady beetle; spider; scorpion; mosquito; caterpillar=bug",
    "plant": "rose; sunflower; tulip; hibiscus; cactus; palm tree; pine tree=evergreen tree=evergreen; "
    "round tree=deciduous tree; mushroom; clover=four leaf clover; maple leaf; seedling; cherry blossom",
    "fruit": "grape=grapes; watermelon; tangerine; lemon; banana; pineapple; mango; apple=red apple; pear; peach; "
    "cherry=cherries=cherries; strawberry; kiwi=kiwi fruit; coconut; melon",
    "vegetable": "tomato; eggplant=eggplant=aubergine; potato; carrot; ear of corn=ear of corn=earofmaize; "
    "chili pepper=hot pepper; cucumber; ~broccoli; ~garlic; onion",
    "food": "croissant; pretzel; bagel; hamburger; pizza=pizza=sliceofpizza; hot dog; sandwich; taco; ~bread; ~cheese=cheese wedge; "
    "~bacon; egg=cooking=cooking; donut=doughnut; cookie; birthday cake; cupcake; lollipop; candy; ice cream=soft ice cream; "
    "~popcorn; ~french fries; ~sushi; ~spaghetti; rice ball; ~cooked rice",
    "drink": "~coffee=hot beverage; teapot; ~wine=wine glass; cocktail=cocktail glass; ~beer=beer mug; ~milk=glass of milk; "
    "baby bottle; ~tea=teacup without handle",
    "vehicle": "car=automobile; bus; taxi; ambulance; fire truck=fire engine; police car; truck=delivery truck; tractor; "
    "race car=racing car=racecar; motorcycle; scooter=motor scooter; bicycle; steam train=locomotive=steamlocomotive; tram; "
    "sailboat; speedboat; canoe; airplane; helicopter; rocket; flying saucer",
    "building": "house; hut; hospital; school; factory; castle=castle=europeancastle; church; tent; bank; hotel",
    "sport": "soccer ball; baseball; basketball=basketball=basketballandhoop; volleyball; football=american football; "
    "tennis ball=tennis; ~bowling; boxing glove; ice skate",
    "instrument": "saxophone; trumpet; guitar; piano=musical keyboard; violin; banjo; drum; accordion",
    "tool": "hammer; axe; saw=carpentry saw; wrench; screwdriver; magnet; ladder; toolbox; ~scissors=scissors=blackscissors; key; "
    "balance scale; syringe; microscope; telescope",
    "clothing": "~glasses; ~sunglasses=sunglasses=darksunglasses; necktie=necktie=tie; shirt=t-shirt=mansshirt; ~jeans; scarf; coat; "
    "~socks; dress; handbag; backpack=backpack=schoolsatchel; running shoe; boot=woman’s boot; high heel=high-heeled shoe=heels; "
    "crown; top hat; cap=billed cap; straw hat=woman’s hat=womanshat; ring",
    "device": "telephone=telephone=blacktelephone; laptop=laptop=personalcomputer; desktop computer; printer; keyboard; "
    "television; camera; radio; battery; light bulb; flashlight=flashlight=electrictorch; watch; alarm clock; microphone",
    "furniture": "door; bed; chair; toilet; bathtub; broom; bucket; candle; mirror",
    "toy": "kite; teddy bear; yo-yo; die=game die=gamedie; puzzle piece; balloon; gift=wrapped gift=present; trophy",
    "sky": "sun=sun=whitesun; moon=crescent moon; star=star=whitemediumstar; cloud; rainbow; snowflake; tornado; planet=ringed planet; "
    "umbrella=umbrella with rain drops=umbrellawithraindrops; snowman=snowman without snow; lightning bolt=high voltage; ~fire",
    "stationery": "pencil=pencil=lowerleftpencil; fountain pen=fountain pen=lowerleftfountainpen; "
    "crayon=crayon=lowerleftcrayon; blue book; green book; envelope; "
    "paperclip; ruler=straight ruler; pushpin; briefcase; newspaper; paintbrush=paintbrush=lowerleftpaintbrush",
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

IRREGULAR_PLURALS = {"mouse": "mice", "die": "dice", "wolf": "wolves", "scarf": "scarves", "fish": "fish", "deer": "deer"}


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
    if noun in ("potato", "tomato", "mango", "mosquito"):
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
