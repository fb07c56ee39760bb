"""The format of log lines: text, or JSON."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal


def configure_logging(level: str, style: Literal["text", "json"] = "text") -> None:
    """Installs one handler on stderr for all loggers, including uvicorn's."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(_TEXT_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for verbose in ("httpx", "httpcore", "opentelemetry"):
        logging.getLogger(verbose).setLevel(max(logging.WARNING, logging.getLogger().level))


_TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, ``extra={"fields": …}``, traceback."""

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
