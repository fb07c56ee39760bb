"""The health check of every image: exit code 0, or 1 and the reason on stdout. The standard library alone.

``healthy.py gateway``: it and the model behind it answer. ``healthy.py model``: the model inside Triton
answers, as it does at once even when it is busy. ``healthy.py playground``: its page is there.
"""

import argparse
import json
import os
import signal
import sys
import urllib.error
import urllib.request

LIMIT_S = 8.0
STUB_DIED = "is not healthy"
"""Triton's answer, for ever, once the process that holds the model is gone."""


def ask(url: str, question: dict[str, str] | None = None) -> str:
    """The reason why the server does not answer as it should; empty when it does.

    Args:
        url: GET, or POST when there is a question.
        question: sent as JSON.
    """
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=LIMIT_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(2000).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error) or type(error).__name__


def look(part: str) -> str:
    """The reason why this part of the stack is not healthy; empty when it is."""
    if part == "gateway":
        return ask(f"http://127.0.0.1:{os.environ.get('API_PORT') or 8080}/health/ready")
    if part == "model":
        port = os.environ.get("GEMMA_TRITON_HTTP_PORT") or 8000
        return ask(f"http://127.0.0.1:{port}/v2/models/gemma3n/generate", {"op": "describe"})
    return ask(f"http://127.0.0.1:{os.environ.get('PLAYGROUND_PORT') or 7860}/")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("gateway", "model", "playground"))
    parser.add_argument(
        "--end", type=int, metavar="PID", help="end this process when the model in it is gone for good"
    )
    arguments = parser.parse_args()
    reason = look(arguments.part)
    if arguments.end and STUB_DIED in reason:
        reason += f"; ending process {arguments.end}, so that it is started anew"
        os.kill(arguments.end, signal.SIGTERM)
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
