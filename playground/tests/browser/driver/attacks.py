"""What somebody sends who wants to read the server's files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

META = {"_type": "gradio.FileData"}


def spellings(path: str) -> list[str]:
    """The ways to write a path."""
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
    """The ways to say that something is a file."""
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


def nested(made_up: Any) -> Iterator[Any]:
    """The places where a value may be searched for files."""
    yield made_up
    yield [made_up]
    yield [[made_up, None]]
    yield {"x": {"y": [made_up]}}
    yield json.dumps(made_up)
    yield json.dumps({"messages": [made_up]})
    yield {"text": "hi", "files": [made_up]}
    yield {"text": made_up, "files": []}
    yield {"text": "hi", "files": made_up}
    yield {"text": "hi", "files": [], "x": made_up}
    for message in (
        {"role": "user", "content": "hi", "x": made_up},
        {"role": "user", "content": made_up},
        {"role": "user", "content": [made_up]},
        {"role": made_up, "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": "hi", "x": made_up}]},
        {"role": "user", "content": [{"type": "file", "file": made_up}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": made_up}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": made_up}}]},
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": made_up, "format": "wav"}}],
        },
        {"role": "user", "content": [{"type": "component", "component": "file", "value": made_up}]},
        {"role": "tool", "tool_call_id": made_up, "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": made_up, "function": made_up}]},
        {"role": "user", "content": "hi", "metadata": {"title": "x", "y": made_up}, "options": [made_up]},
    ):
        yield {"messages": [message]}
    yield {"messages": [{"role": "user", "content": "hi"}], "x": made_up}
    yield {"messages": [{"role": "user", "content": "hi"}], "id": made_up}
    yield {
        "messages": [{"role": "user", "content": "hi"}],
        "settings": {"model": made_up, "tools": [made_up]},
    }
    yield {"messages": [{"role": "user", "content": "hi"}], "settings": made_up}


def places(folder: Path) -> list[str]:
    """Files that a server has and should not show; those in the folder are made, and hold the secret."""
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
