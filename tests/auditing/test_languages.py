"""Questions as people ask them, and what can't be told."""

import pytest

from delta_attnmask.auditing.languages import UNDECIDED, language, script

QUESTIONS = {
    "English": ["What is in the image?", "How many people are there?", "describe the picture in detail", "what?"],
    "German": ["Was ist auf dem Bild zu sehen?", "Wie viele Personen sind das?", "Welche Farbe hat der Ball?"],
    "French": [
        "Que voit-on sur cette image ?",
        "Combien de personnes sont dans la rue ?",
        "De quelle couleur est le bus ?",
    ],
    "Spanish": ["¿Qué hay en la imagen?", "¿Cuántas personas hay?", "¿De qué color es el coche?"],
    "Italian": ["Che cosa c'è nella foto?", "Quante persone sono sedute?", "Di che colore è il gatto?"],
    "Portuguese": ["O que há na imagem?", "Quantas pessoas estão na rua?", "Qual é a cor do carro?"],
    "Dutch": ["Wat is er te zien op de foto?", "Hoeveel mensen zijn er?", "Welke kleur heeft het huis?"],
    "Swedish": ["Vad finns på bilden?", "Hur många personer är det?", "Vilken färg har bilen och vem kör?"],
    "Danish or Norwegian": ["Hva er det på bildet?", "Hvor mange mennesker er der?", "Hvilken farve har bilen?"],
    "Polish": ["Co jest na obrazie?", "Ile osób jest na zdjęciu?", "Jaki kolor ma ten samochód?"],
    "Turkish": ["Resimde ne var?", "Kaç kişi var?", "Bu arabanın rengi nedir?"],
    "Indonesian": ["Apa yang ada di gambar ini?", "Berapa orang yang ada?", "Apa warna mobil itu?"],
    "Vietnamese": ["Trong hình có gì?", "Có bao nhiêu người?", "Xe này màu gì?"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in QUESTIONS.items() for text in texts])
def test_questions_are_told_by_their_small_words(name: str, text: str) -> None:
    assert language(text) == language(text.lower()) == name


@pytest.mark.parametrize("text", ["OK?", "Hamster", "un", "que"])
def test_what_no_language_leads_in_stays_undecided(text: str) -> None:
    assert language(text) == UNDECIDED


def test_other_scripts_go_by_their_name() -> None:
    assert [language(text) for text in ("где кот?", "何ですか", "고양이는?", "12?")] == [
        "Cyrillic",
        "Han",
        "Hangul",
        "other",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1 + 1?", "other"), ("¿qué?", "Latin"), ("2 何?", "Han"), ("これは何", "Kana"), ("", "other"), ("ελ", "Greek")],
)
def test_the_script_of_a_text(text, expected):
    assert script(text) == expected
