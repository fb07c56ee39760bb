"""Every command in the documentation is run by a test, or the reader is told why not.

A fenced block of commands passes in one of three ways:

- it is one of the README's, which ``contract_tests/test_readme.py`` runs as they stand there;
- a comment before it names the test that runs it: ``<!-- tested: path/to/test.py::name -->``;
- the paragraph before it, visible to the reader, begins with *Not run by a test:* and says why; or such a
  paragraph stands earlier and begins with *The commands of this page are not run by a test*, or *section*.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import test_readme
from stack import ROOT

COMMANDS = {"bash", "sh", "shell", "console", "python", "zsh", ""}
"""Languages of fences that a reader is meant to run; one without a name is taken for one."""

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packages/*/README.md", "*/README.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith(".")
)
RUN_BY_TEST_README = {
    block.strip() for block in (*test_readme._blocks("bash"), *test_readme._blocks("python"))
}
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block, the paragraph or comment before it, and a note that was made for all blocks here."""

    page: Path
    line: int
    language: str
    body: str
    before: str
    note: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_command(self) -> bool:
        return self.language in COMMANDS and bool(re.match(r"\s*(\$ )?[\w./-]+", self.body))


def blocks(page: Path, text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip().split("\n\n")[-1].strip()
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE).strip()
        yield Block(page, line, match["language"], body, before, _note(text[: match.start()]))


def _note(text: str) -> str:
    """The last note that covers what follows this text: of the page, or of the section that it is in."""
    of_page, of_section = (
        re.findall(rf"^\*The commands of this {part} are not run by a test[^*]+\*$", where, re.MULTILINE)
        for part, where in (("page", text), ("section", re.split(r"^##? ", text, flags=re.MULTILINE)[-1]))
    )
    return "".join([*of_page, *of_section][-1:])


def complaint(block: Block) -> str:
    """Why the block does not pass; empty when it does."""
    if not block.is_command or (block.page.name == "README.md" and block.body in RUN_BY_TEST_README):
        return ""
    if len(block.note) > 70 or re.match(r"[*_]Not run by a test:? .{15,}", block.before, re.DOTALL):
        return ""
    tested = re.fullmatch(r"<!-- tested: (?P<file>\S+)::(?P<name>\w+) -->", block.before)
    if tested is None:
        return f"{block.where} is neither run by a test nor says why not"
    file = ROOT / tested["file"]
    if not file.is_file() or f"def {tested['name']}(" not in file.read_text(encoding="utf-8"):
        return f"{block.where} names a test that there is not: {tested['file']}::{tested['name']}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_run_or_say_why_not(page: Path) -> None:
    found = [complaint(block) for block in blocks(page, page.read_text(encoding="utf-8"))]
    assert not list(filter(None, found)), "\n".join(filter(None, found))


def test_the_readme_is_run() -> None:
    assert len(RUN_BY_TEST_README) >= 8


def test_a_note_for_all_that_follows() -> None:
    note = "*The commands of this {} are not run by a test: no Jetson is at hand there.*"
    command = "\n\n```bash\nmake serve\n```\n"
    for part, text, passes in (
        ("page", f"{note}{command}# Next\n## One{command}", [True, True]),
        ("section", f"{note}{command}## Next{command}", [True, False]),
        ("page", f"Then{command}{note}{command}", [False, True]),
    ):
        found = blocks(ROOT / "docs" / "page.md", text.format(part))
        assert [complaint(block) == "" for block in found] == passes


BLOCK = "{before}\n\n```{language}\nmake serve\n```\n"


@pytest.mark.parametrize(
    ("before", "language", "passes"),
    [
        ("Then:", "bash", False),
        ("Then:", "", False),
        ("Then:", "json", True),
        ("*Not run by a test: it needs a Jetson, and CI has none.*", "bash", True),
        ("*Not run by a test:*", "bash", False),
        ("<!-- tested: deploy/tests/test_docs.py::test_the_readme_is_run -->", "bash", True),
        ("<!-- tested: deploy/tests/test_docs.py::test_that_is_not_there -->", "bash", False),
        ("<!-- tested: no/such/file.py::test -->", "bash", False),
    ],
)
def test_the_rule_itself(before: str, language: str, passes: bool) -> None:
    (block,) = blocks(ROOT / "docs" / "page.md", BLOCK.format(before=before, language=language))
    assert (complaint(block) == "") is passes
    assert block.line == 3


def test_links_lead_somewhere() -> None:
    """Relative links, and anchors within the same page."""
    broken = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        anchors = {_anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            target, _, anchor = link.partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            if not (page.parent / target).exists() if target else anchor not in anchors:
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken, "\n".join(broken)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
