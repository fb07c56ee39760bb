"""The routes for uploads and for files; a browser can read only its own files."""

import asyncio
from collections.abc import Sequence
from typing import BinaryIO, Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gemma_playground.access_control import API, UPLOAD
from gemma_playground.file_store import MEDIA_TYPES, FileStore, LimitExceededError

UPLOAD_SECONDS: Final = 300
MAX_FILES: Final = 100
"""Limit of one request."""
AS_FILE: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private"}


class FileRoutes:
    """Routes that replace Gradio's."""

    def __init__(self, store: FileStore) -> None:
        self.store = store

    def routes(self) -> list[BaseRoute]:
        """The routes of the application."""
        return [
            Route(UPLOAD, self.upload, methods=["POST"]),
            Route(f"{API}/upload_progress", self.progress),
            Route(f"{API}/file={{path:path}}", self.file),
        ]

    async def upload(self, request: Request) -> Response:
        """Stores the files of a form and returns a path for each. An error is returned as text."""
        try:
            return await self._upload(request)
        except LimitExceededError as error:
            return PlainTextResponse(str(error), error.status)
        except HTTPException as error:  # from the form parser
            return PlainTextResponse(error.detail, error.status_code)

    async def _upload(self, request: Request) -> Response:
        if not (session := request.state.session):
            raise LimitExceededError("This browser has no session. Reload the page.", 403)
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise LimitExceededError("An upload needs a Content-Length.", 411)
        with self.store.reserved(session, int(length)):  # for the form, which Starlette writes to disk
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    form = await request.form(max_files=MAX_FILES, max_fields=MAX_FILES)
            except TimeoutError:
                sentence = f"The upload took more than {UPLOAD_SECONDS} seconds."
                raise LimitExceededError(sentence, 408) from None
        try:
            return await asyncio.to_thread(self._store_all, session, form.getlist("files"))
        finally:
            await form.close()

    def _store_all(self, session: str, given: Sequence[UploadFile | str]) -> Response:
        """Stores all files, or none."""
        files = [self._check(each) for each in given]
        with self.store.reserved(session, sum(size for *_, size in files)):
            pass  # raises if there is no room for all
        return JSONResponse([self.store.add(session, kind, content) for kind, content, _ in files])

    def _check(self, given: UploadFile | str) -> tuple[str, BinaryIO, int]:
        """Suffix, content and size of a file. Raises LimitExceededError."""
        if isinstance(given, str):
            raise LimitExceededError("An upload is a form with files.", 400)
        name = "".join(each for each in (given.filename or "") if each.isprintable())[-60:]
        _, dot, kind = name.lower().rpartition(".")
        if not dot or kind not in MEDIA_TYPES:
            raise LimitExceededError(f"{name!r} is not one of {', '.join(MEDIA_TYPES)}.", 400)
        try:
            self.store.check_size(size := given.size or 0)
        except LimitExceededError as error:
            raise LimitExceededError(f"{name!r}: {error}", error.status) from None
        return kind, given.file, size

    async def progress(self, _: Request) -> Response:
        """The progress of an upload, which is always reported as done."""
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    async def file(self, request: Request) -> Response:
        """A file of this session, or of the page."""
        path = request.path_params["path"]
        found = self.store.readable_path(request.state.session, path)
        if found is None or not found.is_file():
            raise HTTPException(404, "There is no such file.")
        media_type = MEDIA_TYPES.get(found.suffix[1:], "application/octet-stream")
        return FileResponse(found, media_type=media_type, headers=AS_FILE)
