"""The ASGI application of the page, and its server."""

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

from gemma_playground.access_control import AccessControl
from gemma_playground.api_client import ApiClient
from gemma_playground.app import build
from gemma_playground.event_validator import FILE_DATA, EventValidator
from gemma_playground.file_routes import FileRoutes
from gemma_playground.file_store import FileStore
from gemma_playground.settings import PlaygroundSettings
from gemma_playground.tab_registry import TabRegistry

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""Forbids the browser to load anything from other hosts, even if a response's Markdown refers to it."""
CONNECTIONS: Final = 1024
"""An open page uses one or two; above the limit uvicorn returns 503."""
SWEEP_SECONDS: Final = 15
SESSIONS: Final = 1000
"""Tabs whose conversation is kept; the least recently used are dropped."""


class ImmutableAssets(StaticFiles):
    """Gradio's JavaScript modules; browsers may cache them, since their names contain a hash."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """Adds a Cache-Control header to Starlette's response."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def create_app(client: ApiClient, store: FileStore, settings: PlaygroundSettings) -> fastapi.FastAPI:
    """The page as an ASGI application: ``AccessControl``, then ``EventValidator``, then Gradio."""
    demo = build(client, store, settings.max_queue)
    tabs = TabRegistry(demo, settings.max_total_bytes)
    lifespan = partial(_periodic_cleanup, store, tabs)
    app = fastapi.FastAPI(openapi_url=None, lifespan=lifespan, routes=FileRoutes(store).routes())
    app.add_middleware(EventValidator, tabs=tabs, store=store, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(AccessControl, host=settings.host, allowed=settings.allowed_hosts)
    app.mount("/assets", ImmutableAssets(directory=BUILD_PATH_LIB))
    script = (HERE / "page.js").read_text(encoding="utf-8")
    hues = dict.fromkeys(("primary_hue", "secondary_hue"), "indigo")
    theme = gr.themes.Default(**hues, neutral_hue="slate", font="system-ui", font_mono="monospace")
    style: dict[str, Any] = {  # system fonts, so that no font is downloaded
        "theme": theme.set(button_primary_background_fill="*primary_600"),
        "css_paths": HERE / "page.css",
        "head": f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><script>{script}</script>',
        "footer_links": [],
    }
    without = ("show_error", "run_history", "ssr_mode", "enable_monitoring", "pwa", "mcp_server")
    paths = {"allowed_paths": [], "blocked_paths": blocked_paths(store.folder)}
    demo.state_session_capacity = SESSIONS
    limits = {"max_file_size": settings.max_file_bytes}
    gr.mount_gradio_app(app, demo, "", **style, **limits, **paths, **dict.fromkeys(without, False))
    # Gradio checks paths, and refuses SVG files, only in applications that it has started itself.
    demo.has_launched = demo.is_running = True
    store.publish(_paths(demo.config))
    return app


def blocked_paths(folder: Path) -> list[str]:
    """All top-level folders and the working and home directories, except those that contain ``folder``."""
    candidates = {*Path("/").iterdir(), Path.cwd(), Path.home(), HERE}
    return sorted(str(each) for each in candidates if not folder.is_relative_to(each))


def _paths(config: Any) -> Iterator[str]:
    """The paths of the files that the page itself shows, those of the examples."""
    if isinstance(config, dict):
        if config.get("meta") == FILE_DATA:
            yield config["path"]
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _paths(each)


@asynccontextmanager
async def _periodic_cleanup(store: FileStore, tabs: TabRegistry, _: fastapi.FastAPI) -> AsyncIterator[None]:
    """Deletes old files and abandoned events regularly, also without requests."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            store.expire()
            await tabs.sweep()

    task = asyncio.create_task(sweep())
    yield
    task.cancel()


def serve(settings: PlaygroundSettings, api_key: str, folder: Path) -> None:
    """Serves until a signal comes; connections that are open a second later are closed."""
    store = FileStore(folder, settings)
    page = create_app(ApiClient(settings.base_url, api_key), store, settings)
    uvicorn.run(
        page,
        host=settings.host,
        port=settings.port,
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
