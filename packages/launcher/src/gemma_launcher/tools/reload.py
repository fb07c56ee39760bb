"""``gemma-triton reload``: loads the model again through Triton's model control; the gateway stays up."""

import time
from argparse import Namespace
from typing import Any
from urllib.parse import urlsplit

import httpx

from gemma_launcher.addresses import LOOPBACK, is_loopback
from gemma_launcher.errors import CommandError
from gemma_launcher.paths import find_model_repository
from gemma_launcher.settings import LauncherSettings
from gemma_wire import ModelInfo, Options
from gemma_wire.tensors import MODEL

REQUEST_TIMEOUT_S = 10.0
POLL_S = 0.2
UNLOAD_TIMEOUT_S = 60.0
"""After this time the new model is loaded even if the old one is not unloaded yet."""

OLD_MODEL_SERVES = "the old model continues to serve"
NO_MODEL_SERVES = "no model is served until a reload succeeds or the server is restarted"

NOT_ALLOWED = (
    "this Triton does not load models on request: start it with `gemma-triton serve --model-control` "
    "(GEMMA_TRITON_MODEL_CONTROL=true), or your own tritonserver with --model-control-mode=explicit"
)


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Loads the model again; returns when requests reach the new one.

    Raises:
        CommandError: Triton does not respond, does not allow it, or cannot load the model.
    """
    url = _triton_url(settings)
    with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
        triton = ModelControlClient(client, url, settings.gemma_triton_start_limit)
        started, before = time.monotonic(), triton.loaded_at()
        replaced = not options.unload_first and _touch_model(settings, url)
        if replaced:
            triton.load(old_model=before is not None)
            replaced = triton.loaded_at() != before
        if not replaced:
            triton.unload()
            triton.load()
    seconds = time.monotonic() - started
    print(f"{MODEL} was loaded again in {seconds:.1f} s; open responses are completed by the old model")
    return 0


def _touch_model(settings: LauncherSettings, url: str) -> bool:
    """Updates the modification time of the model's files, without which Triton does not load it again.

    Returns:
        Whether that was possible; the files may be on another machine, or belong to another user.

    Raises:
        CommandError: ``GEMMA_MODEL_REPOSITORY`` is not a model repository.
    """
    if not is_loopback(urlsplit(url).hostname or ""):
        return False
    try:
        for file in (find_model_repository(settings) / MODEL).glob("*/model.py"):
            file.touch()
    except OSError:
        return False
    except CommandError:
        if settings.gemma_model_repository:
            raise
        return False
    return True


def _triton_url(settings: LauncherSettings) -> str:
    given = settings.triton_http_url or f"{LOOPBACK}:{settings.gemma_triton_http_port}"
    return given if given.startswith(("http://", "https://")) else f"http://{given}"


class ModelControlClient:
    """A client of Triton's model control extension.

    Args:
        client: of Triton's HTTP port.
        url: for messages.
        load_timeout_s: how long a load may take.
    """

    def __init__(self, client: httpx.Client, url: str, load_timeout_s: float) -> None:
        self._client, self._url, self._load_timeout_s = client, url, load_timeout_s

    def loaded_at(self) -> int | None:
        """When the current model was loaded, Unix seconds; ``None`` if no model responds."""
        body = Options(op="describe").model_dump(exclude_defaults=True)
        response = self._post(f"/v2/models/{MODEL}/generate", body)
        try:
            return ModelInfo.model_validate_json(response.json()["chunk"]).created
        except (ValueError, KeyError, TypeError):
            return None

    def load(self, old_model: bool = False) -> None:
        """Loads the model; a model that is loaded already serves until the new one is ready.

        Raises:
            CommandError: it cannot be loaded; the message says why, and what is served meanwhile.
        """
        self._control("load", self._load_timeout_s, OLD_MODEL_SERVES if old_model else NO_MODEL_SERVES)

    def unload(self) -> None:
        """Unloads the model, and waits until its open responses have ended and its memory is free."""
        self._control("unload", REQUEST_TIMEOUT_S)
        deadline = time.monotonic() + UNLOAD_TIMEOUT_S
        while self._state() != "UNAVAILABLE":
            if time.monotonic() > deadline:
                print(f"the old {MODEL} is still loaded after {UNLOAD_TIMEOUT_S:.0f} s", flush=True)
                return
            time.sleep(POLL_S)

    def _control(self, action: str, timeout_s: float, consequence: str = "") -> None:
        response = self._post(f"/v2/repository/models/{MODEL}/{action}", {}, timeout_s)
        if response.is_success:
            return
        reason = _error_message(response)
        if "not allowed" in reason:
            raise CommandError(NOT_ALLOWED)
        raise CommandError("; ".join(filter(None, (f"{MODEL} cannot be {action}ed: {reason}", consequence))))

    def _state(self) -> str:
        try:
            models = self._post("/v2/repository/index", {}).json()
            return next((str(model.get("state", "")) for model in models if model["name"] == MODEL), "")
        except (ValueError, KeyError, TypeError):
            return ""

    def _post(self, path: str, body: dict[str, Any], timeout_s: float = REQUEST_TIMEOUT_S) -> httpx.Response:
        try:
            return self._client.post(path, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"no Triton responds at {self._url} ({reason}); is one running?") from None


def _error_message(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["error"]).split()).rstrip(" ;.")
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
