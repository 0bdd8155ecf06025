"""Files of answers are hostile until checked, and kept as they came."""

import json

import pytest

from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.reviewing.answers import collect, read_answers, read_judgements
from delta_attnmask.reviewing.protocol import Protocol
from tests.reviewing.conftest import answer_all, save

AT = "2026-01-01T00:00:00.000Z"


def one_answer(protocol, rater="Ann", *, pair=0, question="clarity", answer="first", at=AT):
    found = {"pair": protocol.pairs[pair].token, "question": question, "answer": answer, "at": at}
    return {**answer_all(protocol, rater), "answers": [found]}


def collect_all(folder, tmp_path, *contents):
    for content in contents:
        collect(folder, [save(tmp_path / "answers.json", content)])
    return [(one.rater, one.answer) for one in read_judgements(folder, Protocol.read(folder))]


def test_all_answers_of_a_judge_once(protocol, folder, tmp_path):
    content = answer_all(protocol)
    assert len(collect_all(folder, tmp_path, content, content)) == len(content["answers"])


def test_the_latest_answer_counts_whatever_the_order_of_files(protocol, folder, tmp_path):
    late = one_answer(protocol, answer="second", at="2026-01-01T02:00:00+01:00")
    early = one_answer(protocol, answer="equal", at="2026-01-01T00:59:59")  # UTC
    assert collect_all(folder, tmp_path, late, early) == [("Ann", "second")]


def test_names_that_look_alike_are_one_judge(protocol, folder, tmp_path):
    names = ("Ann  M\u00fcller ", "ann mu\u0308ller", "Ben")
    questions = ("clarity", "overall", "clarity")
    found = [one_answer(protocol, name, question=question) for name, question in zip(names, questions, strict=True)]
    judges = [rater for rater, _ in collect_all(folder, tmp_path, *found)]
    assert len(judges) == 3
    assert {judge.casefold() for judge in judges} == {"ann m\u00fcller", "ben"}
    assert len(set(judges)) == 2


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "a\x1b[31m", "a\u202eb", None, 7, ["Ann"]])
def test_what_is_no_name(protocol, tmp_path, name):
    with pytest.raises(DataError, match="name has 1 to 40 printable characters"):
        read_answers(save(tmp_path / "answers.json", one_answer(protocol, name)), protocol)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pair": 1}, "as texts"),
        ({"pair": "\x1b[31m"}, r"pair '\\x1b\[31m' with question 'clarity' isn't in this review"),
        ({"question": "coverage"}, "question 'coverage' isn't in this review"),
        ({"answer": "third"}, "expected one of first, second, equal, unknown"),
        ({"answer": ["first"]}, "as texts"),
        ({"at": "yesterday"}, "yesterday"),
        ({"at": None}, "as texts"),
    ],
)
def test_what_is_no_answer_is_refused_whole(protocol, folder, tmp_path, change, why):
    content = one_answer(protocol)
    content["answers"].append(content["answers"][0] | change)
    with pytest.raises(DataError, match=why) as caught:
        collect(folder, [save(tmp_path / "answers.json", content)])
    assert str(caught.value).isprintable()
    assert read_judgements(folder, protocol) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "1",
        "null",
        "{}",
        '{"format": "delta-attnmask-answers"}',
        "[" * 100_000,
        '"\\ud800"',
        "\udcff",
        "[{}]",
        "NaN",
    ],
)
def test_what_is_no_file_of_answers(protocol, folder, tmp_path, text):
    path = tmp_path / "answers.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="can't be used as answers"):
        collect(folder, [path])
    assert read_judgements(folder, protocol) == []


def test_answers_that_are_no_objects(protocol, tmp_path):
    for answers in ([1], [None], ["a"], [[]]):
        with pytest.raises(DataError, match="as texts"):
            read_answers(save(tmp_path / "answers.json", answer_all(protocol) | {"answers": answers}), protocol)


def test_another_review(protocol, tmp_path):
    with pytest.raises(DataError, match="answers another review"):
        read_answers(save(tmp_path / "answers.json", answer_all(protocol) | {"review": "0"}), protocol)


def test_one_bad_file_keeps_the_others_out(protocol, folder, tmp_path):
    good, bad = save(tmp_path / "good.json", one_answer(protocol)), save(tmp_path / "bad.json", {})
    for missing in (bad, tmp_path / "none.json"):
        with pytest.raises(DataError, match=missing.name):
            collect(folder, [good, missing])
    assert read_judgements(folder, protocol) == []


def test_what_was_collected_is_kept_as_it_came(protocol, folder, tmp_path):
    path = save(tmp_path / "answers.json", one_answer(protocol))
    collect(folder, [path])
    (kept,) = (folder / "answers").iterdir()
    assert json.loads(kept.read_text()) == json.loads(path.read_text())


def test_no_review(tmp_path):
    with pytest.raises(ArtifactError, match="holds no review"):
        collect(tmp_path, [])
