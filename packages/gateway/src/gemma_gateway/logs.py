"""How log lines look: for people, or as JSON for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal


def configure_logging(level: str, style: Literal["text", "json"] = "text") -> None:
    """One handler on stderr for everything, uvicorn's lines among it."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(_FOR_PEOPLE))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx", "httpcore", "opentelemetry"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


_FOR_PEOPLE = "%(asctime)s %(levelname)-7s %(message)s"


class JsonLines(logging.Formatter):
    """A JSON object a line: time (UTC), level, logger, message, ``extra={"fields": …}``, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
