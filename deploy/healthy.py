"""The health check of every container image: exit code 0, or 1 with the reason on stdout.

``healthy.py gateway``: whether the gateway and its model respond. ``healthy.py model``: whether the model
process responds, which it does at once even when it is busy. ``healthy.py playground``: whether its page is
served. Only the standard library is used.
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
"""In every response of Triton once the model process has died."""


def request_error(url: str, body: dict[str, str] | None = None) -> str:
    """Why a request fails; empty if it succeeds.

    Args:
        url: requested with GET, or with POST if there is a body.
        body: sent as JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=LIMIT_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(2000).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error) or type(error).__name__


def health_error(part: str) -> str:
    """Why this part of the stack is not healthy; empty if it is."""
    if part == "gateway":
        return request_error(f"http://127.0.0.1:{os.environ.get('API_PORT') or 8080}/health/ready")
    if part == "model":
        port = os.environ.get("GEMMA_TRITON_HTTP_PORT") or 8000
        return request_error(f"http://127.0.0.1:{port}/v2/models/gemma3n/generate", {"op": "describe"})
    return request_error(f"http://127.0.0.1:{os.environ.get('PLAYGROUND_PORT') or 7860}/")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("gateway", "model", "playground"))
    parser.add_argument(
        "--end", type=int, metavar="PID", help="end this process if its model process has died"
    )
    arguments = parser.parse_args()
    reason = health_error(arguments.part)
    if arguments.end and STUB_DIED in reason:
        reason += f"; ending process {arguments.end}, so that it is restarted"
        os.kill(arguments.end, signal.SIGTERM)
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
