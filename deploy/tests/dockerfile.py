"""Dockerfiles as data, and what a build would do with them, in a folder instead of an image."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from stack import ROOT

DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    keyword: str
    value: str

    @property
    def argv(self) -> list[str]:
        """The exec form's words; an assertion fails for the shell form."""
        assert self.value.startswith("["), f"{self.keyword} in the shell form: {self.value}"
        return list(map(str, json.loads(self.value)))


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[str]:
        return [each.value for each in self.instructions if each.keyword == keyword]

    def argv(self, keyword: str) -> list[str]:
        """The words of the last ENTRYPOINT or CMD."""
        return [each for each in self.instructions if each.keyword == keyword][-1].argv

    @property
    def health(self) -> list[str]:
        """The words of the health check's command."""
        (check,) = self.all("HEALTHCHECK")
        return Instruction("HEALTHCHECK", check.split(" CMD ", 1)[1]).argv

    def pairs(self, keyword: str) -> dict[str, str]:
        """The ``NAME=value`` of all ENV or LABEL instructions."""
        found = re.findall(r'([\w.]+)=("[^"]*"|\S+)', " ".join(self.all(keyword)))
        return {name: value.strip('"') for name, value in found}


@dataclass(frozen=True)
class Dockerfile:
    """A file of several stages.

    Args:
        arguments: the defaults of the ARGs before the first FROM.
        stages: in their order; the last one is the image.
    """

    path: Path
    arguments: Mapping[str, str]
    stages: tuple[Stage, ...] = field(repr=False)

    @property
    def image(self) -> Stage:
        return self.stages[-1]

    @property
    def build(self) -> Stage:
        return next(stage for stage in self.stages if stage.name == "build")

    def bases(self) -> set[str]:
        """The images from outside that it is made from, ARGs filled in."""
        own = {stage.name for stage in self.stages}
        return {expand(stage.base, self.arguments) for stage in self.stages if stage.base not in own}


def parse(path: Path) -> Dockerfile:
    """Read a Dockerfile; here-documents and escapes other than the backslash are not for us."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = filter(None, (line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines()))
    head, *parts = re.split(r"^FROM ", "\n".join(lines), flags=re.MULTILINE)
    arguments = dict(line.removeprefix("ARG ").split("=", 1) for line in head.splitlines())
    return Dockerfile(path, arguments, tuple(_stage(part) for part in parts))


def _stage(text: str) -> Stage:
    first, *rest = text.splitlines()
    base, _, name = first.partition(" AS ")
    return Stage(name, base, tuple(Instruction(*line.split(" ", 1)) for line in rest))


def expand(text: str, values: Mapping[str, str]) -> str:
    """``${NAME}`` filled in; what has no value is empty, as in a build."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], ""), text)


def context() -> Iterator[Path]:
    """The files that ``docker build .`` sends, relative to the checkout: ``.dockerignore`` applied."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [_rule(line) for line in lines if line and not line.startswith("#")]
    for top in (ROOT / line[1:] for line in lines if line.startswith("!")):
        files = top.rglob("*") if top.is_dir() else [top]
        yield from (file.relative_to(ROOT) for file in files if file.is_file() and _is_sent(file, rules))


def _rule(line: str) -> tuple[re.Pattern[str], bool]:
    name = line.removeprefix("!")
    at_any_depth = r"(?s:.*/)?" if name.startswith("**/") else ""
    return re.compile(at_any_depth + translate(name.removeprefix("**/"))), line.startswith("!")


def _is_sent(file: Path, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """The last rule that matches the file or a folder above it decides."""
    relative = file.relative_to(ROOT)
    paths = [str(relative), *(str(parent) for parent in relative.parents if parent.name)]
    return [wanted for rule, wanted in rules if any(map(rule.fullmatch, paths))][-1]


@dataclass(frozen=True)
class Place:
    """Where the image's folders lie on this machine.

    Args:
        folders: folder of the image → ours.
    """

    folders: Mapping[str, Path]

    def move(self, text: str) -> str:
        """The text with every path of the image replaced."""
        for theirs, ours in self.folders.items():
            text = re.sub(rf"(?<![\w/.-]){re.escape(theirs)}(?![\w-])", str(ours), text)
        return text

    def environment(self, stage: Stage) -> dict[str, str]:
        """The stage's ENV on this machine, and of the shell's variables PATH alone."""
        inherited = {"PATH": os.environ["PATH"]}
        values = {name: expand(self.move(value), inherited) for name, value in stage.pairs("ENV").items()}
        return {**inherited, **values}


_REPOSITORY = "packages/model/src/gemma_model/model_repository"
CHECKOUT = Place({"/opt/venv": Path(sys.prefix), "/app/model_repository": ROOT / _REPOSITORY, "/app": ROOT})
"""The image's folders as the checkout and its virtual environment have them."""


def build(file: Dockerfile, root: Path, poetry: Path, environment: Mapping[str, str]) -> Place:
    """Carry out a build in an empty folder, every command as it is written but for the paths.

    The build stage as a whole; of the image's stage what it copies from the context, since what it
    copies from the build stage is at the same place already.

    Args:
        file: whose stages are carried out.
        root: the empty folder.
        poetry: the virtual environment that stands for /opt/poetry; making that is left out.
        environment: beside the stage's own.
    """
    folders = {
        "/opt/venv": root / "opt/venv",
        "/opt/poetry": poetry,
        "/app": root / "app",
        "/var/cache/pypoetry": Path.home() / ".cache/pypoetry",
    }
    place = Place(folders)
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    folder = root
    for each in file.build.instructions:
        if each.keyword == "WORKDIR":
            folder = Path(place.move(each.value))
            folder.mkdir(parents=True)
        elif each.keyword == "COPY":
            _copy(each.value, place, folder)
        elif each.keyword == "RUN" and "-m venv /opt/poetry" not in each.value:
            env = {**environment, **place.environment(file.build)}
            env["PATH"] = f"{root / 'bin'}:{env['PATH']}"
            command = place.move(re.sub(r"--mount=\S+ ", "", each.value))
            subprocess.run(["bash", "-euc", command], cwd=folder, env=env, check=True)
    for value in file.image.all("COPY"):
        _copy(value, place, folder)
    return place


def _copy(value: str, place: Place, folder: Path) -> None:
    """COPY from the context: files into a folder or to a name, or one folder's content as another's."""
    *sources, target = value.split()
    if sources[0].startswith("--from="):
        return
    sent, end = list(context()), folder / place.move(target)
    for source in sources:
        files = [file for file in sent if file == Path(source) or Path(source) in file.parents]
        assert files, f"COPY {source}: there is no such file in the build context"
        for file in files:
            into = end / file.name if target.endswith("/") else end
            to = into if file == Path(source) else end / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, to)
