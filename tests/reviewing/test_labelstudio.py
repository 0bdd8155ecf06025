"""Tasks and configuration for Label Studio agree with each other, and tell nobody which side was selected."""

import base64
import json
import re
from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from delta_attnmask.errors import DataError
from delta_attnmask.reviewing.labelstudio import export_label_studio, import_label_studio, make_config
from delta_attnmask.reviewing.protocol import ANSWERS, PAIR_QUESTIONS
from delta_attnmask.reviewing.samples import SampleBook
from tests.reviewing.conftest import HOSTILE


@pytest.fixture
def tasks(run, store):
    book = SampleBook.open(run, store.pairs(), seed=0)
    path, config = export_label_studio(store.pairs(), book, store.path)
    assert config.read_text() == make_config()
    return json.loads(path.read_text())


def test_every_variable_of_the_configuration_is_in_every_task(tasks):
    config = ElementTree.fromstring(make_config())
    wanted = {element.get("value", "")[1:] for element in config.iter() if element.get("value", "").startswith("$")}
    assert wanted == {"image1", "image2", "text1", "text2"}
    for task in tasks:
        assert set(task) == {"data"}
        assert set(task["data"]) == {*wanted, "pair"}


def test_the_same_questions_and_answers():
    config = ElementTree.fromstring(make_config())
    names = {element.get("name") for element in config.iter() if element.tag in ("Text", "Image")}
    groups = config.findall("Choices")
    assert [group.get("name") for group in groups] == [question.name for question in PAIR_QUESTIONS]
    for group in groups:
        assert group.get("toName") in names
        assert group.get("required") == "true"
        assert [choice.get("alias") for choice in group] == list(ANSWERS)


def test_tasks_are_blind_and_complete(tasks, store):
    shown = [pair for pair in store.pairs() if pair.kind != "sheet"]
    assert [task["data"]["pair"] for task in tasks] == [pair.token for pair in shown]
    for task in tasks:
        assert "secret" not in json.dumps(task)
        assert task["data"]["text1"].startswith("Instruction: ")
        header, _, body = task["data"]["image1"].partition(",")
        assert re.fullmatch(r"data:image/(png|jpeg);base64", header)
        assert Image.open(BytesIO(base64.b64decode(body))).size == (24, 16)
    assert HOSTILE in tasks[0]["data"]["text1"]  # plain text there, which its Text tag shows as it is


def annotate(tasks, annotation_id=1, answer="first", **more):
    """What Label Studio exports of these tasks when somebody has answered one question of the first one."""
    result = [{"from_name": "clarity", "to_name": "text1", "type": "choices", "value": {"choices": [answer]}}]
    annotation = {"id": annotation_id, "completed_by": {"email": "ann@example.org"}, "result": result, **more}
    return [task | {"annotations": [annotation] if n == 0 else []} for n, task in enumerate(tasks)]


def test_answers_come_back_once(tasks, store, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(annotate(tasks)))
    assert [import_label_studio(tmp_path / "export.json", store) for _ in range(2)] == [1, 1]
    (judged,) = store.judgements()
    assert (judged.rater, judged.position, judged.question, judged.answer) == (
        "Label Studio ann@example.org",
        store.pairs()[0].position,
        "clarity",
        "first",
    )
    (tmp_path / "export.json").write_text(json.dumps(annotate(tasks, 2, "second", was_cancelled=True)))
    assert import_label_studio(tmp_path / "export.json", store) == 0


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"data": {}}]', '[{"data": {}, "annotations": [1]}]'])
def test_what_is_no_export(store, tmp_path, content):
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(DataError, match="export"):
        import_label_studio(tmp_path / "export.json", store)


def test_answers_to_another_review_or_unknown_ones(tasks, store, tmp_path):
    other = [{"data": {"pair": "0000"}, "annotations": []}]
    for content, why in [(other, "of another review"), (annotate(tasks, answer="third"), "expected one of first")]:
        (tmp_path / "export.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=why):
            import_label_studio(tmp_path / "export.json", store)
    assert store.judgements() == []
