"""``gemma-triton reload``: loads the model anew through Triton's model control; the gateway stays up."""

import time
from argparse import Namespace
from typing import Any
from urllib.parse import urlsplit

import httpx

from gemma_launcher.errors import CannotStart
from gemma_launcher.places import model_repository
from gemma_launcher.settings import Settings
from gemma_launcher.triton_address import LOOPBACK
from gemma_wire import ModelInfo, Options
from gemma_wire.tensors import MODEL

PATIENCE_S = 10.0
POLL_S = 0.2
UNLOAD_S = 60.0
"""An old model that has not gone by then does not keep the new one from being loaded."""

STILL_SERVES = "the old one goes on serving"
NOTHING_SERVES = "no model serves until a reload works, or a restart"

NOT_ALLOWED = (
    "this Triton loads no models on request: start it with `gemma-triton serve --model-control` "
    "(GEMMA_TRITON_MODEL_CONTROL=true), or a tritonserver of your own with --model-control-mode=explicit"
)


def run(settings: Settings, options: Namespace) -> int:
    """Loads the model anew; returns when requests reach the new one.

    Raises:
        CannotStart: Triton does not answer, does not allow it, or cannot load the model.
    """
    url = _url(settings)
    with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        triton = Control(client, url, settings.gemma_triton_start_limit)
        began, before = time.monotonic(), triton.loaded_at()
        beside = not options.unload_first and _touch(settings, url)
        if beside:
            triton.load(beside_another=before is not None)
            beside = triton.loaded_at() != before
        if not beside:
            triton.unload()
            triton.load()
    print(f"{MODEL} was loaded anew in {time.monotonic() - began:.1f} s; open answers end on the old one")
    return 0


def _touch(settings: Settings, url: str) -> bool:
    """Makes the model look changed: Triton takes one whose files are as old as before for up to date.

    Returns:
        Whether that was possible; the files may be another machine's, or another user's.

    Raises:
        CannotStart: the repository that was named is none.
    """
    if urlsplit(url).hostname not in (LOOPBACK, "localhost", "::1"):
        return False
    try:
        for file in (model_repository(settings) / MODEL).glob("*/model.py"):
            file.touch()
    except OSError:
        return False
    except CannotStart:
        if settings.gemma_model_repository:
            raise
        return False
    return True


def _url(settings: Settings) -> str:
    given = settings.triton_http_url
    if not given:
        return f"http://{LOOPBACK}:{settings.gemma_triton_http_port}"
    return given if given.startswith(("http://", "https://")) else f"http://{given}"


class Control:
    """Triton's model control.

    Args:
        client: of Triton's HTTP port.
        url: for people.
        limit_s: how long a load may take.
    """

    def __init__(self, client: httpx.Client, url: str, limit_s: float) -> None:
        self._client, self._url, self._limit_s = client, url, limit_s

    def loaded_at(self) -> int | None:
        """When the model that answers now was loaded, Unix seconds; none when none answers."""
        question = Options(op="describe").model_dump(exclude_defaults=True)
        answer = self._post(f"/v2/models/{MODEL}/generate", question)
        try:
            return ModelInfo.model_validate_json(answer.json()["chunk"]).created
        except (ValueError, KeyError, TypeError):
            return None

    def load(self, beside_another: bool = False) -> None:
        """Loads the model; one that is loaded already serves until the new one is ready.

        Raises:
            CannotStart: it cannot be loaded; why not, and what serves then.
        """
        self._ask("load", self._limit_s, STILL_SERVES if beside_another else NOTHING_SERVES)

    def unload(self) -> None:
        """Takes the model away, and waits a while for its open answers to end and its memory to be free."""
        self._ask("unload", PATIENCE_S)
        deadline = time.monotonic() + UNLOAD_S
        while self._state() != "UNAVAILABLE":
            if time.monotonic() > deadline:
                print(f"the old {MODEL} is there still after {UNLOAD_S:.0f} s, with its memory", flush=True)
                return
            time.sleep(POLL_S)

    def _ask(self, what: str, limit_s: float, otherwise: str = "") -> None:
        answer = self._post(f"/v2/repository/models/{MODEL}/{what}", {}, limit_s)
        if answer.is_success:
            return
        reason = _error(answer)
        if "not allowed" in reason:
            raise CannotStart(NOT_ALLOWED)
        raise CannotStart("; ".join(filter(None, (f"{MODEL} cannot be {what}ed: {reason}", otherwise))))

    def _state(self) -> str:
        try:
            models = self._post("/v2/repository/index", {}).json()
            return next((str(model.get("state", "")) for model in models if model["name"] == MODEL), "")
        except (ValueError, KeyError, TypeError):
            return ""

    def _post(self, path: str, body: dict[str, Any], limit_s: float = PATIENCE_S) -> httpx.Response:
        try:
            return self._client.post(path, json=body, timeout=limit_s)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CannotStart(f"no Triton answers at {self._url} ({reason}); is one running?") from None


def _error(answer: httpx.Response) -> str:
    try:
        return " ".join(str(answer.json()["error"]).split()).rstrip(" ;.")
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
