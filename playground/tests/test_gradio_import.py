"""Gradio is imported without the generation of its type stubs."""

import subprocess
import sys

IMPORT = """
from gemma_playground.gradio_import import skip_type_stubs
skip_type_stubs()
import gradio.component_meta
assert gradio.component_meta.create_or_modify_pyi.__module__ == "gemma_playground.gradio_import"
assert gradio.Textbox().submit
"""


def test_the_function_that_writes_type_stubs_is_replaced() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
