"""Tasks and configuration for Label Studio agree with each other, and tell nobody which side was selected."""

import base64
import json
import re
from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from delta_attnmask.errors import DataError
from delta_attnmask.reviewing.answers import collect, read_answers, read_judgements
from delta_attnmask.reviewing.handout import export_label_studio
from delta_attnmask.reviewing.protocol import ANSWERS, QUESTIONS
from tests.reviewing.conftest import HOSTILE, save


@pytest.fixture
def exported(protocol, dataset, folder):
    """The tasks and the configuration."""
    tasks, config = export_label_studio(protocol, dataset, folder)
    return json.loads(tasks.read_text()), ElementTree.fromstring(config.read_text())


@pytest.fixture
def tasks(exported):
    return exported[0]


def test_every_variable_of_the_configuration_is_in_every_task(exported):
    tasks, config = exported
    values = [element.get("value") or element.get("valueList") or "" for element in config.iter()]
    wanted = {value[1:] for value in values if value.startswith("$")}
    assert wanted == {"images1", "images2", "text1", "text2"}
    for task in tasks:
        assert set(task) == {"data", "meta"}
        assert set(task["data"]) == {*wanted, "pair"}


def test_the_same_questions_and_answers(exported):
    _, config = exported
    names = {element.get("name") for element in config.iter() if element.tag in ("Text", "Image")}
    groups = config.findall("Choices")
    assert [group.get("name") for group in groups] == [question.name for question in QUESTIONS]
    for group in groups:
        assert group.get("toName") in names
        assert group.get("required") == "true"
        assert [choice.get("alias") for choice in group] == list(ANSWERS)


def test_tasks_are_blind_and_complete(tasks, protocol):
    assert [task["data"]["pair"] for task in tasks] == [pair.token for pair in protocol.pairs]
    for task in tasks:
        assert "secret" not in json.dumps(task)
        (image,) = task["data"]["images1"]
        header, _, body = image.partition(",")
        assert re.fullmatch(r"data:image/webp;base64", header)
        assert Image.open(BytesIO(base64.b64decode(body))).size in ((24, 16), (400, 300))
    assert tasks[0]["data"]["text1"].startswith("Instruction: ")
    assert HOSTILE in tasks[0]["data"]["text1"]  # plain text there, which its Text tag shows as it is


def annotate(tasks, annotation_id=1, answer="first", **more):
    """What Label Studio exports of these tasks when somebody has answered one question of the first one."""
    result = [{"from_name": "clarity", "to_name": "text1", "type": "choices", "value": {"choices": [answer]}}]
    annotation = {"id": annotation_id, "completed_by": {"email": "ann@example.org"}, "result": result, **more}
    return [task | {"annotations": [annotation] if n == 0 else []} for n, task in enumerate(tasks)]


def test_answers_come_back_once(tasks, protocol, folder, tmp_path):
    for _ in range(2):
        collect(folder, [save(tmp_path / "export.json", annotate(tasks))])
    (judged,) = read_judgements(folder, protocol)
    assert (judged.rater, judged.pair.token, judged.question, judged.answer) == (
        "Label Studio ann@example.org",
        tasks[0]["data"]["pair"],
        "clarity",
        "first",
    )
    cancelled = save(tmp_path / "export.json", annotate(tasks, 2, "second", was_cancelled=True))
    assert read_answers(cancelled, protocol) == []


def test_a_changed_answer_counts_by_its_time(tasks, protocol, folder, tmp_path):
    times = {"first": "2026-05-02T10:00:00Z", "second": "2026-05-01T10:00:00Z"}
    for answer, time in times.items():
        collect(folder, [save(tmp_path / "export.json", annotate(tasks, 1, answer, updated_at=time))])
    assert [one.answer for one in read_judgements(folder, protocol)] == ["first"]


@pytest.mark.parametrize(
    "content", [[1], [{"data": {}}], [{"data": {}, "annotations": [1]}], [{"data": 1, "annotations": []}]]
)
def test_what_is_no_export(protocol, tmp_path, content):
    with pytest.raises(DataError, match="expected an export of Label Studio"):
        read_answers(save(tmp_path / "export.json", content), protocol)


def test_answers_to_another_review_or_unknown_ones(tasks, protocol, folder, tmp_path):
    other = annotate([{"data": {"pair": "0000"}}])
    for content, why in [(other, "isn't in this review"), (annotate(tasks, answer="third"), "expected one of first")]:
        with pytest.raises(DataError, match=why):
            collect(folder, [save(tmp_path / "export.json", content)])
    assert read_judgements(folder, protocol) == []
