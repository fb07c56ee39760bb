"""The page as an application, and the server that it listens with."""

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
from gemma_playground.client import Client

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""What the browser may load: nothing of another host, whatever an answer's Markdown asks for."""
LOOPBACK: Final = ("127.0.0.1", "localhost")
MAX_FILE_BYTES: Final = 20 * 2**20


class Assets(StaticFiles):
    """Gradio's modules, hundreds, each named by what it holds: a browser need not ask for one again."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """Starlette's, to be kept."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def application(client: Client, host: str) -> fastapi.FastAPI:
    """The page as an ASGI application."""
    app = fastapi.FastAPI(openapi_url=None)
    if host in LOOPBACK:  # A foreign page whose name resolves to this machine gets nothing.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)
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
    without = dict.fromkeys(("show_error", "run_history", "ssr_mode", "enable_monitoring", "pwa"), False)
    gr.mount_gradio_app(app, build(client), "", max_file_size=MAX_FILE_BYTES, **look, **without)
    return app


def serve(base_url: str, api_key: str, host: str, port: int) -> None:
    """Serves until a signal comes; whoever still has the page open is cut off after a second."""
    page = application(Client(base_url, api_key), host)
    uvicorn.run(page, host=host, port=port, access_log=False, timeout_graceful_shutdown=1)
