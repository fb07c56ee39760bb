"""The page as an application, and the server that it listens with."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import fastapi
import gradio as gr
import uvicorn
from gradio.route_utils import BUILD_PATH_LIB
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from gemma_playground.app import build
from gemma_playground.client import Client
from gemma_playground.events import FILE_DATA, Events
from gemma_playground.files import FileStore
from gemma_playground.guard import Guard
from gemma_playground.settings import Settings
from gemma_playground.tabs import Tabs
from gemma_playground.uploads import Uploads

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""What the browser may load: nothing of another host, whatever an answer's Markdown asks for."""
CONNECTIONS: Final = 1024
"""An open page has one or two; more get 503 from uvicorn."""
SWEEP_SECONDS: Final = 15
SESSIONS: Final = 1000
"""Tabs whose conversation is held; those not used for longest are dropped first."""


class Assets(StaticFiles):
    """Gradio's modules, hundreds, each named by what it holds: a browser need not ask for one again."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """Starlette's, to be kept."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def application(client: Client, store: FileStore, settings: Settings) -> fastapi.FastAPI:
    """The page as an ASGI application. The first of its layers is ``Guard``, then ``Events``, then Gradio."""
    demo = build(client, store, settings.max_queue)
    tabs = Tabs(demo, settings.max_total_bytes)
    lifespan = partial(_sweeping, store, tabs)
    app = fastapi.FastAPI(openapi_url=None, lifespan=lifespan, routes=Uploads(store).routes())
    app.add_middleware(Events, tabs=tabs, store=store, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Guard, host=settings.host, allowed=settings.allowed_hosts)
    app.mount("/assets", Assets(directory=BUILD_PATH_LIB))
    script = (HERE / "page.js").read_text(encoding="utf-8")
    hues = dict.fromkeys(("primary_hue", "secondary_hue"), "indigo")
    theme = gr.themes.Default(**hues, neutral_hue="slate", font="system-ui", font_mono="monospace")
    look: dict[str, Any] = {  # of the system's own fonts, so that nothing is fetched
        "theme": theme.set(button_primary_background_fill="*primary_600"),
        "css_paths": HERE / "page.css",
        "head": f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><script>{script}</script>',
        "footer_links": [],
    }
    without = ("show_error", "run_history", "ssr_mode", "enable_monitoring", "pwa", "mcp_server")
    paths = {"allowed_paths": [], "blocked_paths": blocked(store.folder)}
    demo.state_session_capacity = SESSIONS
    limits = {"max_file_size": settings.max_file_bytes}
    gr.mount_gradio_app(app, demo, "", **look, **limits, **paths, **dict.fromkeys(without, False))
    # Gradio checks paths, and shows no SVG of any path, only in apps that it has started itself.
    demo.has_launched = demo.is_running = True
    store.publish(_paths(demo.config))
    return app


def blocked(folder: Path) -> list[str]:
    """Everything at the root, and the working and home directories, without what the folder is in."""
    beside = {*Path("/").iterdir(), Path.cwd(), Path.home(), HERE}
    return sorted(str(each) for each in beside if not folder.is_relative_to(each))


def _paths(config: Any) -> Iterator[str]:
    """Of the files that the page itself shows: those of the examples."""
    if isinstance(config, dict):
        if config.get("meta") == FILE_DATA:
            yield config["path"]
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _paths(each)


@asynccontextmanager
async def _sweeping(store: FileStore, tabs: Tabs, _: fastapi.FastAPI) -> AsyncIterator[None]:
    """Old files, and what nobody waits for, are deleted even when nobody comes."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            store.expire()
            await tabs.sweep()

    sweeping = asyncio.create_task(sweep())
    yield
    sweeping.cancel()


def serve(settings: Settings, api_key: str, folder: Path) -> None:
    """Serves until a signal comes; whoever still has the page open is cut off after a second."""
    store = FileStore(folder, settings)
    page = application(Client(settings.base_url, api_key), store, settings)
    uvicorn.run(
        page,
        host=settings.host,
        port=settings.port,
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
