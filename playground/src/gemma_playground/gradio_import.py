"""Speeds up the import of Gradio, which otherwise generates type stubs for editors each time."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

MODULE: Final = "gradio.component_meta"


class SkipTypeStubs(MetaPathFinder):
    """Imports ``gradio.component_meta`` without its function ``create_or_modify_pyi``.

    The function parses the source of each component class and writes a ``.pyi`` file next to it. That was
    almost half of the CPU time of the import (Gradio 6.31), and fails on a read-only file system.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of that one module, with a loader that replaces the function."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            vars(module)["create_or_modify_pyi"] = lambda *_: None

        vars(spec.loader)["exec_module"] = exec_module
        return spec


def skip_type_stubs() -> None:
    """Call this before Gradio is imported."""
    sys.meta_path.insert(0, SkipTypeStubs())
