"""The routes of files: a browser brings them here, and gets back only its own."""

import asyncio
from collections.abc import Sequence
from typing import BinaryIO, Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gemma_playground.files import MEDIA_TYPES, FileStore, LimitExceededError
from gemma_playground.guard import API, UPLOAD

UPLOAD_SECONDS: Final = 300
MAX_FILES: Final = 100
"""Of one request."""
AS_FILE: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private"}


class Uploads:
    """The routes, in front of those that Gradio has for the same."""

    def __init__(self, store: FileStore) -> None:
        self.store = store

    def routes(self) -> list[BaseRoute]:
        """For an application."""
        return [
            Route(UPLOAD, self.upload, methods=["POST"]),
            Route(f"{API}/upload_progress", self.progress),
            Route(f"{API}/file={{path:path}}", self.file),
        ]

    async def upload(self, request: Request) -> Response:
        """Stores the files of a form, and answers with a path for each. A refusal is a sentence, as text."""
        try:
            return await self._upload(request)
        except LimitExceededError as error:
            return PlainTextResponse(str(error), error.status)
        except HTTPException as error:  # of the form's parser
            return PlainTextResponse(error.detail, error.status_code)

    async def _upload(self, request: Request) -> Response:
        if not (session := request.state.session):
            raise LimitExceededError("This browser has no session. Load the page again.", 403)
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise LimitExceededError("An upload needs a Content-Length.", 411)
        with self.store.reserved(session, int(length)):  # for the form, which is on the disk meanwhile
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    form = await request.form(max_files=MAX_FILES, max_fields=MAX_FILES)
            except TimeoutError:
                sentence = f"The upload took more than {UPLOAD_SECONDS} seconds."
                raise LimitExceededError(sentence, 408) from None
        try:
            return await asyncio.to_thread(self._stored, session, form.getlist("files"))
        finally:
            await form.close()

    def _stored(self, session: str, given: Sequence[UploadFile | str]) -> Response:
        """All of them, or none."""
        files = [self._checked(each) for each in given]
        with self.store.reserved(session, sum(size for *_, size in files)):
            pass  # There is room for all.
        return JSONResponse([self.store.add(session, kind, content) for kind, content, _ in files])

    def _checked(self, given: UploadFile | str) -> tuple[str, BinaryIO, int]:
        """Kind, content and size of a file. Raises LimitExceededError."""
        if isinstance(given, str):
            raise LimitExceededError("An upload is a form with files.", 400)
        name = "".join(each for each in (given.filename or "") if each.isprintable())[-60:]
        _, dot, kind = name.lower().rpartition(".")
        if not dot or kind not in MEDIA_TYPES:
            raise LimitExceededError(f"{name!r} is none of {', '.join(MEDIA_TYPES)}.", 400)
        try:
            self.store.check_size(size := given.size or 0)
        except LimitExceededError as error:
            raise LimitExceededError(f"{name!r}: {error}", error.status) from None
        return kind, given.file, size

    async def progress(self, _: Request) -> Response:
        """The page asks how much of an upload has come; it can do without."""
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    async def file(self, request: Request) -> Response:
        """A file of this session, or one of the page's own."""
        path = request.path_params["path"]
        found = self.store.shown(request.state.session, path)
        if found is None or not found.is_file():
            raise HTTPException(404, "There is no such file.")
        media_type = MEDIA_TYPES.get(found.suffix[1:], "application/octet-stream")
        return FileResponse(found, media_type=media_type, headers=AS_FILE)
