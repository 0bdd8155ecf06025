"""The documents against the code: commands parse, links lead somewhere, the Python page has every public name."""

import re
import shlex
from pathlib import Path

import pytest
from cyclopts.exceptions import CycloptsError, MissingArgumentError

import delta_attnmask
from delta_attnmask.cli import app

HOME = Path(__file__).parent.parent
RECORDS = sorted((HOME / "benchmarks").rglob("*.md"))
NOT_FOR_USERS = {"architecture.md", "add-a-model.md", "add-a-score.md"}
GENERATED = {"models.md", "api.md"}  # api.md names what is taken from the docstrings
PAGES = [HOME / "README.md", HOME / "AGENTS.md", *sorted((HOME / "docs").rglob("*.md")), *RECORDS]
PROGRAM = "delta-attnmask"
COMMANDS = {name for name in app if not name.startswith("-")}
ELISIONS = {"…", "..."}
LINKED_PAGES = [*sorted(HOME.glob("*.md")), *sorted((HOME / "docs").rglob("*.md")), *RECORDS]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def block_lines(text: str) -> list[str]:
    """The lines of code blocks, fenced and indented, with continued lines joined."""
    lines, is_fenced = [], False
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            lines.append(line)
    return lines


def block_commands(text: str) -> list[str]:
    """What follows the program's name on each line of a code block that calls it."""
    lines = [line for line in block_lines(text) if not line.lstrip().startswith("#")]
    calls = [re.search(rf"(?:^|\s){PROGRAM}\s+(.*)", line) for line in lines]
    return [call[1] for call in calls if call is not None]


def inline_commands(text: str) -> list[str]:
    """Commands within sentences: with the program's name, or a command's name and an option."""
    found = []
    for code in (" ".join(match.split()) for match in INLINE.findall(text)):
        name, _, rest = code.partition(" ")
        if name == PROGRAM and rest.split(" ")[0] in COMMANDS:
            found.append(rest)
        elif name in COMMANDS and "--" in rest:
            found.append(code)
    return found


def parse(command: str, *, may_lack: bool) -> None:
    """Parse a command without running it; where something may be left out, fill in what is required."""
    tokens = shlex.split(command, comments=True)
    kept = [token for token in tokens if token not in ELISIONS]
    may_lack = may_lack or len(kept) < len(tokens)
    for _ in range(10):
        try:
            app.parse_args(kept, print_error=False, exit_on_error=False)
            return
        except MissingArgumentError as error:
            if not may_lack or error.argument is None:
                raise
            name = error.argument.name
            kept[1:1] = [name, "X"] if name.startswith("--") else ["X"]
    raise AssertionError(f"{command!r} lacks more than can be filled in")


def cases() -> list[tuple[str, str, bool]]:
    """Page, command, and whether the sentence may leave out what the command requires."""
    found = []
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(HOME))
        found += [(name, command, False) for command in block_commands(text)]
        found += [(name, command, True) for command in inline_commands(text)]
    return found


@pytest.mark.parametrize(("page", "command", "may_lack"), cases())
def test_commands_parse(page, command, may_lack):
    parse(command, may_lack=may_lack)


def test_commands_are_found():
    found = cases()
    assert sum(not may_lack for *_, may_lack in found) >= 30
    assert {command.split()[0] for _, command, _ in found} == COMMANDS


@pytest.mark.parametrize(
    "command",
    ["scores --data x", "score MODEL --data x --out y", "score … --engine rays", "score … --bogus", "check --limit x"],
)
def test_wrong_commands_are_refused(command):
    with pytest.raises(CycloptsError):
        parse(command, may_lack=False)


@pytest.mark.parametrize("page", LINKED_PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_links_lead_somewhere(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("config", sorted((HOME / "examples").glob("*.yaml")), ids=lambda config: config.name)
def test_examples_of_run_parse(config):
    _, given, _ = app.parse_args(["run", "--config", str(config), "--out", "X"], print_error=False, exit_on_error=False)
    assert given.arguments["plan"].opponents


def n_words(page: Path) -> int:
    return len(page.read_text(encoding="utf-8").split())


def test_documents_are_short_enough_to_be_read():
    assert n_words(HOME / "README.md") <= 900
    pages = [page for page in (HOME / "docs").glob("*.md") if page.name not in NOT_FOR_USERS | GENERATED]
    assert sum(map(n_words, pages)) <= 8_000
    assert len((HOME / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_every_public_name_is_on_the_python_page():
    page = (HOME / "docs" / "api.md").read_text(encoding="utf-8")
    directives = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith(":::")}
    assert set(delta_attnmask.__all__) <= directives
