"""The page as an application, and the server that it listens with."""

import socket
from pathlib import Path
from typing import Any, Final

import fastapi
import gradio as gr
import uvicorn
from gradio.route_utils import BUILD_PATH_LIB
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from gemma_playground.app import build
from gemma_playground.settings import Settings

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""What the browser may load: nothing of another host, whatever an answer's Markdown asks for."""

LOOPBACK: Final = ("127.0.0.1", "localhost")


class Server(uvicorn.Server):
    """Says where it listens; Gradio's own ``launch`` first calls itself, and gives up on a slow machine."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, or exits with 1 when the port is taken."""
        await super().startup(sockets)
        if self.started:
            print(f"playground: http://{self.config.host}:{self.config.port}", flush=True)


class Assets(StaticFiles):
    """Gradio's modules, hundreds, each named by what it holds: a browser need not ask for one again."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """Starlette's, to be kept."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def theme() -> gr.themes.Base:
    """Calm, and with the system's own fonts, so that nothing is fetched."""
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        text_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")


def application(settings: Settings) -> fastapi.FastAPI:
    """The page as an ASGI application."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    app = fastapi.FastAPI(openapi_url=None)
    if settings.host in LOOPBACK:  # A foreign page whose name resolves to this machine gets nothing.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)
    app.mount("/assets", Assets(directory=BUILD_PATH_LIB))
    gr.mount_gradio_app(
        app,
        build(settings),
        path="",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=settings.max_file_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css_paths=HERE / "page.css",
        head=f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><script>{script}</script>',
    )
    return app


def serve(settings: Settings) -> None:
    """Serves until a signal comes; whoever still has the page open is cut off after a second."""
    config = uvicorn.Config(application(settings), settings.host, settings.port, log_level="warning")
    config.timeout_graceful_shutdown = 1
    Server(config).run()
