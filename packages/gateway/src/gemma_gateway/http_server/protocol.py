"""HTTP on one connection: uvicorn's protocol with timeouts for every phase.

A disconnect is notified by asyncio: ``connection_lost`` makes the application's ``receive`` return
``http.disconnect``. A client that only closes its sending side still gets its response; it is distinguished
from one that has closed the whole connection by probes (decision 014). Invalid HTTP gets 400 with the reason.
"""

import asyncio
import logging
from typing import Any, Final

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from gemma_gateway.errors import ApiError, MalformedRequest, RequestTimeout
from gemma_gateway.http_server.connections import Admission, ConnectionPhase, ConnectionPool
from gemma_gateway.http_server.error_responses import error_response, only_health, overloaded
from gemma_gateway.http_server.parser import RequestParser, as_scope, malformed
from gemma_gateway.http_server.response_writer import ReadFlowControl, ResponseCycle, ResponseWriter
from gemma_gateway.http_server.tcp import TCPState, set_options, tcp_state

log = logging.getLogger(__name__)
_EVENTS_AT_ONCE: Final = 200
"""Events, such as chunks of a body, that are handled before other connections get their turn."""
_COMMENT: Final = b": \n\n"
"""A comment, which clients ignore (HTML standard, 9.2.6)."""
_PROBE_SECONDS: Final = 0.1
"""Between the first and the second probe of a half-closed connection; the interval doubles each time."""
_MOST_PROBE_SECONDS: Final = 15.0


class HTTPProtocol(H11Protocol):
    """One connection in ``pool``; the options are uvicorn's."""

    flow: ReadFlowControl

    def __init__(self, pool: ConnectionPool, **options: Any) -> None:
        super().__init__(**options)
        self.conn: RequestParser = RequestParser()
        self.cycle: ResponseCycle | None = None  # type: ignore[assignment]
        self.phase = ConnectionPhase.HEAD
        self.half_closed = False
        self._pool = pool
        self._since = self.loop.time()
        self._accepted, self._accepted_at = 0, self._since
        self._probe_at, self._probe_seconds = self._since, _PROBE_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.flow = ReadFlowControl(transport)
        self.writer = ResponseWriter(transport, self.finish)
        set_options(transport)
        admission = self._pool.admit(self)
        if admission is Admission.HEALTH_ONLY:
            self.app = only_health(self.app, self._pool.limit)
        elif admission is Admission.REFUSED:
            self.writer.write(error_response(overloaded(self._pool.limit), self.server_state.default_headers))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._pool.discard(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self.writer.is_closing():
            return
        if self.conn.their_state in (h11.MUST_CLOSE, h11.CLOSED):  # it has announced its last request
            self._pause_reading()
            return
        if self.phase is ConnectionPhase.IDLE:
            self._enter(ConnectionPhase.HEAD)
        self.conn.receive_data(data)
        if not self.flow.held:
            self.handle_events()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its sending side. Returns whether to keep the connection open."""
        if self.half_closed:
            return True
        if self.writer.ended or self.phase in (ConnectionPhase.IDLE, ConnectionPhase.DRAINING):
            return False
        self.half_closed = True
        if self.phase is ConnectionPhase.RESPONDING and self.conn.their_state is not h11.SEND_BODY:
            self._pool.watch(self)
            self.watch(self.loop.time())
            return True
        if self.phase is ConnectionPhase.RESPONDING or self._has_head():
            self.refuse(MalformedRequest("The connection was closed before the request was complete."))
        return False

    def handle_events(self) -> None:
        """Handles the received data, as far as that is possible now."""
        for _ in range(_EVENTS_AT_ONCE):
            if self.writer.is_closing():
                return
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError as error:
                self.refuse(malformed(error))
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                self._pause_reading()
                return
            if not self._handle(event):
                return
        self.flow.hold()
        self.loop.call_soon(self._continue)

    def refuse(self, error: ApiError) -> None:
        """Responds with an error, unless the application has begun to respond, and ends the connection."""
        log.info("refused: %s", error.message)
        started, path = self.phase is ConnectionPhase.DRAINING, ""
        if self.phase is ConnectionPhase.RESPONDING and self.cycle is not None:
            started, path = self.cycle.response_started, self.cycle.scope["path"]
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not started:
            self.writer.write(error_response(error, self.server_state.default_headers, path))
        self._linger()

    def finish(self) -> None:
        """Ends the connection after a response."""
        if self.conn.their_state is h11.SEND_BODY:
            self._linger()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Called when the response has been written."""
        self.server_state.total_requests += 1
        if self.writer.is_closing():
            return
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self._next_request()
        else:
            self._enter(ConnectionPhase.DRAINING)
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Closes the connection when the server shuts down, after the response in progress."""
        if self.phase is ConnectionPhase.RESPONDING and self.cycle is not None:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def evict(self) -> None:
        """See ``Connection``."""
        log.debug("evicted in favour of a new connection while %s", self.phase.value)
        self.transport.abort()

    def check(self, now: float) -> None:
        """See ``Connection``."""
        if self.writer.accepted != self._accepted or not self.writer.waiting:
            self._accepted, self._accepted_at = self.writer.accepted, now
        timeouts = self._pool.timeouts
        if now - self._accepted_at > timeouts.write:
            log.info("closing a connection: the client has read nothing for %g s", timeouts.write)
            self.transport.abort()
        elif now - self._since > timeouts.of(self.phase) and not self.transport.is_closing():
            self._time_out()

    def watch(self, now: float) -> bool:
        """See ``Connection``."""
        if self.phase is not ConnectionPhase.RESPONDING or self.writer.is_closing():
            return False
        state = tcp_state(self.transport)
        if state is TCPState.CLOSED:
            self.transport.abort()
            return False
        self.half_closed = self.half_closed or state is TCPState.HALF_CLOSED
        if self.half_closed and now >= self._probe_at:
            self._probe()
            self._probe_at = now + self._probe_seconds
            self._probe_seconds = min(2 * self._probe_seconds, _MOST_PROBE_SECONDS)
        return self.half_closed or self.flow.read_paused

    def _handle(self, event: Any) -> bool:
        """Returns whether to handle further events."""
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._add_body(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return self._end_body()
        return True

    def _begin(self, request: h11.Request) -> None:
        """Starts the application on a request."""
        self.headers = [(name.lower(), value) for name, value in request.headers]
        self.scope = {
            **as_scope(request, self.headers),  # type: ignore[typeddict-item]
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "state": self.app_state.copy(),
        }
        self.cycle = cycle = ResponseCycle(
            scope=self.scope,
            conn=self.conn,
            transport=self.writer,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=self.on_response_complete,
        )
        self._enter(ConnectionPhase.RESPONDING)
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _add_body(self, data: bytes) -> None:
        if self.phase is not ConnectionPhase.RESPONDING or self.cycle is None:
            return  # the response is already complete
        self.cycle.body += data
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._pause_reading()
        self.cycle.message_event.set()

    def _end_body(self) -> bool:
        """Returns whether another request may follow."""
        if self.phase is ConnectionPhase.RESPONDING and self.cycle is not None:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        elif self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self._next_request()
            return False
        return self.conn.their_state is not h11.MUST_CLOSE

    def _next_request(self) -> None:
        self.conn.start_next_cycle()
        self._enter(ConnectionPhase.HEAD if self._has_head() else ConnectionPhase.IDLE)
        if not self.flow.held:
            self.handle_events()
        if self.half_closed and self.phase is not ConnectionPhase.RESPONDING:
            self.transport.close()

    def _continue(self) -> None:
        self.flow.release()
        self.handle_events()
        waits = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if waits and (self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT):
            self.flow.resume_reading()

    def _has_head(self) -> bool:
        """Whether a part of the next request's head has been received."""
        return bool(self.conn.trailing_data[0])

    def _enter(self, phase: ConnectionPhase) -> None:
        self.phase = phase
        self._since = self.loop.time()
        self._probe_at, self._probe_seconds = self._since, _PROBE_SECONDS
        self._pool.moved(self)
        if phase is ConnectionPhase.RESPONDING and self.half_closed:
            self._pool.watch(self)

    def _pause_reading(self) -> None:
        self.flow.pause_reading()
        self._pool.watch(self)

    def _linger(self) -> None:
        """Closes the sending side, and for a while discards what the client still sends."""
        if self.half_closed:
            self.transport.close()
            return
        self.writer.end()
        self._enter(ConnectionPhase.DRAINING)
        self.flow.release()
        self.flow.resume_reading()

    def _time_out(self) -> None:
        if self.phase is ConnectionPhase.HEAD and self._has_head():
            seconds = self._pool.timeouts.head
            self.refuse(RequestTimeout(f"The head of the request did not arrive within {seconds:g} seconds."))
        elif self.phase is ConnectionPhase.DRAINING and not self.writer.waiting:
            self.transport.abort()
        elif self.phase is not ConnectionPhase.DRAINING:
            self.transport.close()

    def _probe(self) -> None:
        """Sends bytes that do not change the response; a client that has closed the connection resets it."""
        if self.cycle is None or self.writer.waiting:
            return
        if not self.cycle.response_started:
            self.writer.write_ahead()
        elif self.cycle.is_event_stream and not self.cycle.response_complete:
            self.writer.write(self.conn.send(h11.Data(data=_COMMENT)))
