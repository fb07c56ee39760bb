"""Prepares the folder that represents a GGUF file, and prints its path.

Usage: ``python -m gemma_model.gguf_checkpoint PATH [--encoders PATH | --text-only]``. An error is one line on
stderr, with exit code 1.
"""

import argparse
import sys
from pathlib import Path

from gemma_model.gguf_checkpoint.folder import prepare_folder
from gemma_wire import InvalidRequest


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Prepare a GGUF file to be served.")
    parser.add_argument("path", type=Path, help="the file, or a folder with one model")
    parser.add_argument("--encoders", type=Path, help="mmproj file, or folder of a checkpoint with encoders")
    parser.add_argument("--text-only", action="store_true", help="use no encoders")
    given = parser.parse_args()
    try:
        print(prepare_folder(given.path, encoders=given.encoders, text_only=given.text_only))
    except InvalidRequest as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
