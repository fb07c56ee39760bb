"""Requests of an attacker who wants to read the server's files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

META = {"_type": "gradio.FileData"}


def spellings(path: str) -> list[str]:
    """Different ways to write a path."""
    name = path.lstrip("/")
    up = "../" * 12
    return [
        path,
        f"/{path}",
        f"//127.0.0.1/{name}",
        f"file://{path}",
        f"file://localhost{path}",
        f"{up}{name}",
        f"/tmp/{up}{name}",
        f"./{up}{name}",
        quote(path, safe=""),
        quote(quote(path, safe=""), safe=""),
        quote(f"{up}{name}", safe=""),
        f"{up}{name}".replace("../", "..%2f"),
        f"{up}{name}".replace("../", "....//"),
        path.replace("/", "\\"),
        f"\\\\127.0.0.1{path}".replace("/", "\\"),
        f"{path}\0",
        f"{path}\0.png",
        f"{path}%00.png",
        f"{path}/.",
        f"{path}#.png",
        f"{path}?.png",
        f"/proc/self/root{path}",
        f"/dev/fd/../../..{path}",
    ]


def file_data(path: str) -> Iterator[Any]:
    """Values that Gradio may interpret as a file."""
    full = {"path": path, "meta": META}
    yield full
    yield {**full, "url": path}
    yield {
        **full,
        "url": f"/gradio_api/file={path}",
        "orig_name": "a.png",
        "mime_type": "image/png",
        "size": 1,
    }
    yield {**full, "url": "data:image/png;base64,AAAA", "is_stream": False, "is_file": True}
    yield {**full, "is_stream": True}
    yield {**full, "meta": {**META, "more": 1}, "b64": "AAAA", "name": path, "data": path, "is_file": True}
    yield {"name": path, "is_file": True, "data": None}
    yield {"path": path}
    yield {"video": full, "subtitles": full}
    yield {"file": full, "alt_text": None}
    yield {"__type__": "update", "value": full}
    yield {"value": full}


def nested(fake_file: Any) -> Iterator[Any]:
    """Values that contain a file at different depths."""
    yield fake_file
    yield [fake_file]
    yield [[fake_file, None]]
    yield {"x": {"y": [fake_file]}}
    yield json.dumps(fake_file)
    yield json.dumps({"messages": [fake_file]})
    yield {"text": "hi", "files": [fake_file]}
    yield {"text": fake_file, "files": []}
    yield {"text": "hi", "files": fake_file}
    yield {"text": "hi", "files": [], "x": fake_file}
    for message in (
        {"role": "user", "content": "hi", "x": fake_file},
        {"role": "user", "content": fake_file},
        {"role": "user", "content": [fake_file]},
        {"role": fake_file, "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": "hi", "x": fake_file}]},
        {"role": "user", "content": [{"type": "file", "file": fake_file}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": fake_file}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": fake_file}}]},
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": fake_file, "format": "wav"}}],
        },
        {"role": "user", "content": [{"type": "component", "component": "file", "value": fake_file}]},
        {"role": "tool", "tool_call_id": fake_file, "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": fake_file, "function": fake_file}]},
        {"role": "user", "content": "hi", "metadata": {"title": "x", "y": fake_file}, "options": [fake_file]},
    ):
        yield {"messages": [message]}
    yield {"messages": [{"role": "user", "content": "hi"}], "x": fake_file}
    yield {"messages": [{"role": "user", "content": "hi"}], "id": fake_file}
    yield {
        "messages": [{"role": "user", "content": "hi"}],
        "settings": {"model": fake_file, "tools": [fake_file]},
    }
    yield {"messages": [{"role": "user", "content": "hi"}], "settings": fake_file}


def places(folder: Path) -> list[str]:
    """Files that the server must not serve; those in the folder are created and contain the secret."""
    secret = folder / "secret.png"
    (link := folder / "link.png").symlink_to(secret)
    return [
        str(secret),
        str(link),
        "/proc/self/environ",
        "/etc/hostname",
        "/dev/zero",
        "/proc/self/cwd/README.md",
    ]
