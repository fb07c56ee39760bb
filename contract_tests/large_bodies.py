"""Request bodies of very many small items, and how long a health check takes while one is parsed."""

import threading
import time
from collections.abc import Callable

import httpx

MESSAGE = b'{"role":"user","content":"a"},'
KEYS = b",".join(b'"k%d":1' % i for i in range(800_000))
ONE = b'{"model":"gemma3n","messages":[' + MESSAGE[:-1] + b"]"
LARGE: dict[str, Callable[[], bytes]] = {
    "messages": lambda: ONE[:-1] + b"," + MESSAGE * 600_000 + MESSAGE[:-1] + b"]}",
    "unknown keys": lambda: ONE + b"," + KEYS + b"}",
    "parts": lambda: ONE.replace(b'"a"', b"[" + b'{"type":"text","text":"a"},' * 600_000 + b"1]") + b"}",
    "wrong messages": lambda: ONE[:-1] + b"," + b"1," * 3_000_000 + b"1]}",
    "depth": lambda: ONE + b',"metadata":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
}


def longest_health_check(url: str, body: bytes) -> tuple[int, float]:
    """The status of the response, and the longest time of ``/health/live`` meanwhile, in seconds."""
    worst, over = [0.0], threading.Event()

    def watch() -> None:
        with httpx.Client(trust_env=False, timeout=120) as client:
            while not over.is_set():
                begun = time.monotonic()
                client.get(f"{url}/health/live")
                worst[0] = max(worst[0], time.monotonic() - begun)
                time.sleep(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        headers = {"content-type": "application/json"}
        response = httpx.post(
            f"{url}/v1/chat/completions", content=body, headers=headers, timeout=120, trust_env=False
        )
        status = response.status_code
    finally:
        over.set()
        watching.join()
    return status, worst[0]
