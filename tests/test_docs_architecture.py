"""docs/architecture.md and its picture are those of the code: scripts/architecture.py makes them anew, and the same."""

import importlib.util
import itertools
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from tune.engine.events import KINDS

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "scripts" / "architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_picture_are_up_to_date(script: ModuleType, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "architecture.md", tmp_path)
    script.main(tmp_path)
    for name in ("architecture.md", "architecture.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), f"{name}: run `just architecture`"


def test_what_is_read_off_the_code_is_so(script: ModuleType) -> None:
    found = script.read()
    assert found.facts["Suggests"] == ["NEW_TRIAL", "PARAMETER"]
    assert found.facts["Reported"] == ["REQUEST_PARAMETER", "METRIC"]  # through two functions
    assert found.facts["SaysExhausted"] == ["EXHAUSTED"]  # imported by another name
    assert found.facts["Due"] == ["TICK", "KILL", "TRIAL_END", "SET_ASIDE"]
    assert found.intents == ["STATUS", "REQUEST_PARAMETER", "LAUNCH", "KILL", "TRIAL_END"]
    assert found.opening == ["EXPERIMENT", "ENGINE_STARTED"]
    assert found.queues["METRIC"] == ["news"]  # it stands before the match
    assert found.queues["HOST"] == ["claimed", "lost", "probe", "stop"]
    assert found.commands["AskTuner"] == "asks"
    assert list(found.queues) == list(KINDS)


def test_words_that_are_not_so_are_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INTENTS", "ANSWERS"):
        with monkeypatch.context() as patch:
            table = dict(getattr(script, name))
            del table[next(iter(table))]
            patch.setattr(script, name, table)
            with pytest.raises(LookupError, match="in one place only"):
                script.read()
    for change in ({"by": "TICK"}, {"commands": ["Nothing"]}, {"outcomes": [("Exited", "LAUNCH", "")]}):
        wrong = next(rule for rule in script.RULES if rule.by == "HOST")._replace(**change)
        with monkeypatch.context() as patch:
            patch.setattr(script, "RULES", [wrong])
            with pytest.raises(LookupError, match="is not among"):
                script.read()


def test_only_what_stands_between_the_marks_is_replaced(script: ModuleType) -> None:
    page = "before\n<!-- one -->\nold\n<!-- /one -->\nafter\n"
    new = script.filled(page, {"one": "new"})
    assert new == page.replace("old", "new")
    assert script.filled(new, {"one": "new"}) == new
    with pytest.raises(LookupError, match="once each"):
        script.filled("no marks", {"one": "new"})


def test_the_picture_is_drawn_within_its_frame_and_no_box_covers_another(script: ModuleType) -> None:
    found = script.read()
    root = ET.fromstring(script.draw(found))
    width, height = (int(root.attrib[name]) for name in ("width", "height"))
    boxes = [
        tuple(int(node.attrib[name]) for name in ("x", "y", "width", "height"))
        for node in root.iter(f"{SVG}rect")
        if node.attrib["class"] == "box"
    ]
    for x, y, wide, high in boxes:
        assert min(x, y) >= 0 and x + wide <= width and y + high <= height
    for one, two in itertools.combinations(boxes, 2):
        assert one[0] != two[0] or abs(one[1] - two[1]) >= one[3]
    right = {(x + wide, y + high // 2) for x, y, wide, high in boxes}
    left = {(x - 1, y + high // 2) for x, y, wide, high in boxes}
    arrows = list(root.iter(f"{SVG}path"))
    for arrow in arrows:
        numbers = [int(number) for number in re.findall(r"\d+", arrow.attrib["d"])]
        assert tuple(numbers[:2]) in right and tuple(numbers[6:8]) in left
    told = {arrow.findtext(f"{SVG}title") for arrow in arrows}
    assert {"Exited → TRIAL_END", "intents → LAUNCH", "KILL → stop", "stop → StopTrial"} <= told
    words = {node.text for node in root.iter(f"{SVG}text")}
    assert {*KINDS, *found.facts, *found.commands} <= words
