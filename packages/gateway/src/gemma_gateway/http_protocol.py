"""HTTP on one connection: uvicorn's protocol, with an end for everything a client can leave undone.

Every phase of a connection has its time. A client may close its sending side and still gets its answer; one
that has closed all of the connection is told apart by what is sent to it (decision 014). What is no HTTP is
answered with the reason.
"""

import asyncio
import logging
from typing import Any, Final

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from gemma_gateway.connections import Admission, ConnectionPool, Phase
from gemma_gateway.errors import ApiError, MalformedRequest, RequestTimeout
from gemma_gateway.http_parser import RequestParser, as_scope, malformed
from gemma_gateway.http_response import Cycle, Flow, ResponseWriter, as_bytes, only_health, overloaded
from gemma_gateway.tcp import TCPState, notice_dead_machines, tcp_state

log = logging.getLogger(__name__)
_EVENTS_AT_ONCE: Final = 200
"""Parts of requests, such as chunks, that are read before other connections have their turn."""
_COMMENT: Final = b": \n\n"
"""An event that is none (Server-sent events, 9.2.6)."""
_PROBE_SECONDS: Final = 0.1
"""From the first probe of a half-closed connection to the second; every further one waits twice as long."""
_MOST_PROBE_SECONDS: Final = 15.0


class HTTPProtocol(H11Protocol):
    """One connection, of those in ``pool``; the options are uvicorn's."""

    flow: Flow

    def __init__(self, pool: ConnectionPool, **options: Any) -> None:
        super().__init__(**options)
        self.conn: RequestParser = RequestParser()
        self.cycle: Cycle | None = None  # type: ignore[assignment]
        self.phase = Phase.HEAD
        self.half_closed = False
        self._pool = pool
        self._since = self.loop.time()
        self._accepted, self._accepted_at = 0, self._since
        self._probe_at, self._probe_seconds = self._since, _PROBE_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.writer = ResponseWriter(transport, self.finish)
        notice_dead_machines(transport)
        admission = self._pool.admit(self)
        if admission is Admission.HEALTH_ONLY:
            self.app = only_health(self.app, self._pool.limit)
        elif admission is Admission.REFUSED:
            self.writer.write(as_bytes(overloaded(self._pool.limit), self.server_state.default_headers))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._pool.discard(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self.writer.is_closing():
            return
        if self.conn.their_state in (h11.MUST_CLOSE, h11.CLOSED):  # it said that this would be all
            self._pause_reading()
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self.conn.receive_data(data)
        if not self.flow.held:
            self.handle_events()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more; whether it is to be answered."""
        if self.half_closed:
            return True
        if self.writer.ended or self.phase in (Phase.IDLE, Phase.DRAINING):
            return False
        self.half_closed = True
        if self.phase is Phase.ANSWERING and self.conn.their_state is not h11.SEND_BODY:
            self._pool.watch(self)
            self.watch(self.loop.time())
            return True
        if self.phase is Phase.ANSWERING or self._has_head():
            self.refuse(MalformedRequest("The connection was closed before the request was complete."))
        return False

    def handle_events(self) -> None:
        """What has arrived, as far as it can be handled now."""
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
        """Answers in place of the application, if nothing is answered yet, and ends the connection."""
        log.info("refused: %s", error.message)
        started = self.phase is Phase.DRAINING
        if self.phase is Phase.ANSWERING and self.cycle is not None:
            started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not started:
            self.writer.write(as_bytes(error, self.server_state.default_headers))
        self._linger()

    def finish(self) -> None:
        """Ends the connection after a response."""
        if self.conn.their_state is h11.SEND_BODY:
            self._linger()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """The response is written."""
        self.server_state.total_requests += 1
        if self.writer.is_closing():
            return
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self._next_request()
        else:
            self._enter(Phase.DRAINING)
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """The server ends: so does the connection, after an answer that is under way."""
        if self.phase is Phase.ANSWERING and self.cycle is not None:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def evict(self) -> None:
        """See ``Connection``."""
        log.debug("closed for another connection while %s", self.phase.value)
        self.transport.abort()

    def check(self, now: float) -> None:
        """See ``Connection``."""
        if self.writer.accepted != self._accepted or not self.writer.waiting:
            self._accepted, self._accepted_at = self.writer.accepted, now
        timeouts = self._pool.timeouts
        if now - self._accepted_at > timeouts.write:
            log.info("a client that has read nothing for %g s is cut off", timeouts.write)
            self.transport.abort()
        elif now - self._since > timeouts.of(self.phase) and not self.transport.is_closing():
            self._time_out()

    def watch(self, now: float) -> bool:
        """See ``Connection``."""
        if self.phase is not Phase.ANSWERING or self.writer.is_closing():
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
        """Whether more can follow."""
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
        self.cycle = cycle = Cycle(
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
        self._enter(Phase.ANSWERING)
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _add_body(self, data: bytes) -> None:
        if self.phase is not Phase.ANSWERING or self.cycle is None:
            return  # of a request that is answered already
        self.cycle.body += data
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._pause_reading()
        self.cycle.message_event.set()

    def _end_body(self) -> bool:
        """Whether another request may follow."""
        if self.phase is Phase.ANSWERING and self.cycle is not None:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        elif self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self._next_request()
            return False
        return self.conn.their_state is not h11.MUST_CLOSE

    def _next_request(self) -> None:
        self.conn.start_next_cycle()
        self._enter(Phase.HEAD if self._has_head() else Phase.IDLE)
        if not self.flow.held:
            self.handle_events()
        if self.half_closed and self.phase is not Phase.ANSWERING:
            self.transport.close()

    def _continue(self) -> None:
        self.flow.release()
        self.handle_events()
        waits = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if waits and (self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT):
            self.flow.resume_reading()

    def _has_head(self) -> bool:
        """Whether a part of the next head is here."""
        return bool(self.conn.trailing_data[0])

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since = self.loop.time()
        self._probe_at, self._probe_seconds = self._since, _PROBE_SECONDS
        self._pool.moved(self)
        if phase is Phase.ANSWERING and self.half_closed:
            self._pool.watch(self)

    def _pause_reading(self) -> None:
        self.flow.pause_reading()
        self._pool.watch(self)

    def _linger(self) -> None:
        """The client gets all that is written; what it still sends is thrown away for a moment."""
        if self.half_closed:
            self.transport.close()
            return
        self.writer.end()
        self._enter(Phase.DRAINING)
        self.flow.release()
        self.flow.resume_reading()

    def _time_out(self) -> None:
        if self.phase is Phase.HEAD and self._has_head():
            seconds = self._pool.timeouts.head
            self.refuse(RequestTimeout(f"The head of the request did not arrive within {seconds:g} seconds."))
        elif self.phase is Phase.DRAINING and not self.writer.waiting:
            self.transport.abort()
        elif self.phase is not Phase.DRAINING:
            self.transport.close()

    def _probe(self) -> None:
        """Sends what changes no answer, so that a client that has closed the connection resets it."""
        if self.cycle is None or self.writer.waiting:
            return
        if not self.cycle.response_started:
            self.writer.write_ahead()
        elif self.cycle.is_event_stream and not self.cycle.response_complete:
            self.writer.write(self.conn.send(h11.Data(data=_COMMENT)))
