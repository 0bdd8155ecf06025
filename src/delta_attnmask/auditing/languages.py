"""Which language a text seems to be in: by its script and, in Latin letters, by a vote of frequent small words.

The limits: it knows the languages below and no other; relatives of theirs are taken for them or stay undecided. A text
of a word or two often has no vote. Two languages in one text become one. The audit asks it about the question alone,
of which a run keeps the first 160 characters; answers aren't kept, so their language isn't known.
"""

import re
import unicodedata
from functools import cache

UNDECIDED = "Latin script, undecided"

# Writing systems by the first word of their letters' names in Unicode.
_SCRIPTS = {
    name.upper(): name for name in ["Latin", "Greek", "Cyrillic", "Hebrew", "Arabic", "Devanagari", "Thai", "Hangul"]
}
_SCRIPTS |= {"HIRAGANA": "Kana", "KATAKANA": "Kana", "CJK": "Han"}
_WORDS = {
    "English": "the of and is are what which how many this that in on to does do there where who why can you with it",
    "German": "der die das und ist sind was welche welcher wie viele ein eine im auf den dem zu nicht wo wer warum",
    "French": "le la les des et est sont que qu quel quelle quels combien un une dans sur du de ce cette où qui l d",
    "Spanish": "el la los las de y es son qué cuál cuántos cuántas un una en del que no dónde quién hay está esta por",
    "Italian": "il lo la i gli le di e è sono che cosa quale quali quanti quante un una nel nella del dove chi questa",
    "Portuguese": "o a os as de e é são que qual quais quantos quantas um uma no na do da em onde quem há está esta",
    "Dutch": "de het een en is zijn wat welke hoe veel hoeveel in op van niet waar wie waarom deze dit er te",
    "Swedish": "och är det en ett vad vilken vilket vilka hur många på av som inte vem varför i den bilden finns",
    "Danish or Norwegian": "og er det en et hva hvad hvilken hvilke hvor mange på af som ikke hvem hvorfor i den der",
    "Polish": "i w z na jest są co jaki jaka jakie ile to nie się gdzie kto dlaczego ten tym czy",
    "Turkish": "ve bir bu ne hangi kaç var mı mi nerede kim neden için ile nedir tane",
    "Indonesian": "yang dan di ini itu apa berapa ada adalah dengan untuk tidak dari mana siapa mengapa dalam",
    "Vietnamese": "là và của có trong gì nào bao nhiêu này không ở đâu ai tại sao một những màu",
}
_LETTERS = re.compile(r"[^\W\d_]+")


def language(text: str) -> str:
    """The language with the most votes; the script where it isn't Latin, `UNDECIDED` where no language leads."""
    if (found := script(text)) != "Latin":
        return found
    votes = [name for word in _LETTERS.findall(text.lower()) for name in _voters().get(word, ())]
    ranked = sorted(((votes.count(name), name) for name in set(votes)), reverse=True)
    is_clear = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][0] > ranked[1][0])
    return ranked[0][1] if is_clear else UNDECIDED


def script(text: str) -> str:
    """The writing system of the text's first letter that belongs to a known one; else "other"."""
    for char in filter(str.isalpha, text):
        if found := _SCRIPTS.get(unicodedata.name(char, "").partition(" ")[0]):
            return found
    return "other"


@cache
def _voters() -> dict[str, list[str]]:
    """Word -> the languages that it speaks for."""
    words = {word for listed in _WORDS.values() for word in listed.split()}
    return {word: [name for name, listed in _WORDS.items() if word in listed.split()] for word in words}
