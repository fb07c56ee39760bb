"""Every command in the documentation is run by a test, or the reader is told why not.

A block of commands passes in one of four ways:

- it is one of the README's that ``contract_tests/test_readme.py`` runs as they stand there;
- ``docs/plans.py`` writes what the command says below it, which ``make lint`` and a test compare;
- a comment before it names the test that runs it: ``<!-- tested: path/to/test.py::name -->``;
- the paragraph before it, visible to the reader, begins with *Not run by a test:* and says why; or such a
  paragraph stands earlier and begins with *The commands of this page are not run by a test*, or *section*.
"""

import re
import runpy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import test_readme
from stack import ROOT

COMMANDS = {"bash", "sh", "shell", "console", "python", "zsh", ""}
"""Languages of fences that a reader is meant to run; one without a name is taken for one."""

_PROGRAMS = "gemma-triton|make|docker|kubectl|nix|curl|python3?|pip|poetry|git|hf|npm|sudo|export"
_A_COMMAND = re.compile(rf"^\s*(\$ )?(\w+=\S* )*(\S*/)?({_PROGRAMS})( |$)", re.MULTILINE)
"""A line that is a command, whatever the language of its block is said to be."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,}|~{3,})(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=mark)$"
    r"|(?<=\n\n)(?P<indented>(?: {4,}\S[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^[> ]*(`{3,}|~{3,})", re.MULTILINE)


def _pages() -> list[Path]:
    """All that is under version control, but for the template of the bundled model's page."""
    names = ["git", "ls-files", "*.md", ":!demo/card.md"]
    listed = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines()]


PAGES = _pages()
RUN_BY_TEST_README = {block.strip() for block in test_readme.RUN}
WRITTEN = runpy.run_path(str(ROOT / "docs" / "plans.py"))["_BLOCK"]


@dataclass(frozen=True)
class Block:
    """One block of code, the paragraph or comment before it, and a note that was made for all blocks here."""

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
        return self.language in COMMANDS or bool(_A_COMMAND.search(self.body))


def blocks(page: Path, text: str) -> Iterator[Block]:
    """The fenced blocks, and the indented ones, which have no language."""
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip().split("\n\n")[-1].strip()
        line = text.count("\n", 0, match.start()) + 1
        indented = match["indented"]
        written, indent = (indented, " {4}") if indented else (match["body"], match["indent"])
        body = re.sub(rf"^{indent}", "", written, flags=re.MULTILINE).strip()
        language = "text" if indented else match["language"]
        yield Block(page, line, language, body, before, _note(text[: match.start()]))


def _note(text: str) -> str:
    """The last note that covers what follows this text: of the page, or of the section that it is in."""
    of_page, of_section = (
        re.findall(rf"^\*The commands of this {part} are not run by a test[^*]+\*$", where, re.MULTILINE)
        for part, where in (("page", text), ("section", re.split(r"^##? ", text, flags=re.MULTILINE)[-1]))
    )
    return "".join([*of_page, *of_section][-1:])


def complaint(block: Block) -> str:
    """Why the block does not pass; empty when it does."""
    if not block.is_command or (block.page == ROOT / "README.md" and block.body in RUN_BY_TEST_README):
        return ""
    if block.page == ROOT / "docs" / "jetson.md" and WRITTEN.fullmatch(f"```text\n{block.body}\n```"):
        return ""
    if len(block.note) > 70 or re.match(r"[*_]Not run by a test:? .{15,}", block.before, re.DOTALL):
        return ""
    tested = re.fullmatch(r"<!-- tested: (?P<file>\S+)::(?P<name>test_\w+) -->", block.before)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_block_escapes(page: Path) -> None:
    """Every mark of a fence that stands in the text opens or closes a block that was found."""
    text = page.read_text(encoding="utf-8")
    assert not _MARK.findall(_FENCE.sub("", text))


def test_every_page_is_checked() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "docs/operations.md", "playground/README.md", "docs/decisions/README.md"} <= names
    assert {"models/gemma3n-nano/README.md", "packages/launcher/README.md"} <= names


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
        ("Then:", "console", False),
        ("*Not run by a test: it needs a Jetson, and CI has none.*", "bash", True),
        ("*Not run by a test:*", "bash", False),
        ("Then:", "text", False),
        ("<!-- tested: deploy/tests/test_docs.py::test_every_page_is_checked -->", "bash", True),
        ("<!-- tested: deploy/tests/test_docs.py::complaint -->", "bash", False),
        ("<!-- tested: deploy/tests/test_docs.py::test_that_is_not_there -->", "bash", False),
        ("<!-- tested: no/such/file.py::test -->", "bash", False),
    ],
)
def test_the_rule_itself(before: str, language: str, passes: bool) -> None:
    (block,) = blocks(ROOT / "docs" / "page.md", BLOCK.format(before=before, language=language))
    assert (complaint(block) == "") is passes
    assert block.line == 3


@pytest.mark.parametrize(
    ("text", "is_command"),
    [
        ("```bash\n# first\n(cd x && ./run)\n```", True),
        ("```bash\n$ make\n```", True),
        ("```\nanything\n```", True),
        ("~~~sh\nmake\n~~~", True),
        ("````bash\n```\nmake\n```\n````", True),
        ("- In a list:\n\n  ```bash\n  make\n  ```", True),
        ("Indented:\n\n    A=1 B=2 .venv/bin/gemma-triton serve\n\nand on", True),
        ("```text\ngemma-triton chat   talk to it\n```", True),
        ("```text\nmaking a model   of parts\n```", False),
        ("Indented:\n\n    plan, run, commit\n", False),
        ('```json\n{"make": 1}\n```', False),
    ],
)
def test_what_a_command_is(text: str, is_command: bool) -> None:
    (block,) = blocks(ROOT / "docs" / "page.md", f"Then.\n\n{text}\n")
    assert block.is_command is is_command
    assert (complaint(block) != "") is is_command


def test_the_table_of_settings_is_what_the_settings_say() -> None:
    script, page = ROOT / "docs" / "configuration.py", ROOT / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == runpy.run_path(str(script))["page"]()


def test_every_variable_that_is_read_is_on_the_page_of_settings() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sources = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("playground/src/**/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(r"\benviron(?:ment)?(?:\.get\(|\[)\s*\"([A-Z_]+)\"", code))
    assert {"OPENAI_API_KEY", "CXX"} <= read
    ours = {
        "OTEL_SERVICE_NAME",
        "XDG_STATE_HOME",
        "TERM",
        "PATH",
    }  # of others, and they mean here what they mean
    assert not {name for name in read - ours if f"`{name}`" not in page}


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
