"""A small collector of traces: takes OTLP over HTTP as real ones do, and keeps every span as a value. Needs the extra `otel`."""

from __future__ import annotations

import dataclasses
import http.server
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from lensway.testing.deployment import wait_until


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectedSpan:
    """One span as it came in. Ids are hexadecimal, ``parent`` is "" for a root; times are seconds of the wall clock."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    state: str
    started_at: float
    ended_at: float
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    is_error: bool


class Collector:
    """Listens on a port of its own. A context manager."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process that sends its spans here is started with."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def received(self) -> bytes:
        """Everything that came in, as it came."""
        with self._lock:
            return b"\n".join(self._bodies)

    def spans(self, trace: str | None = None) -> list[CollectedSpan]:
        """The spans of a trace, or all, as they came in."""
        with self._lock:
            bodies = list(self._bodies)
        found = [span for body in bodies for span in _spans(body)]
        return [span for span in found if trace is None or span.trace == trace]

    def wait_for(self, trace: str, count: int) -> list[CollectedSpan]:
        """The spans of a trace once there are so many. Raises AssertionError when they do not come."""
        wait_until(lambda: len(self.spans(trace)) >= count, seconds=10, what=f"{count} spans of {trace}")
        return self.spans(trace)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces", self.path
                with collector._lock:
                    collector._bodies.append(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        return Handler


def _spans(body: bytes) -> list[CollectedSpan]:
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            found += [
                CollectedSpan(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    state=span.trace_state,
                    started_at=span.start_time_unix_nano / 1e9,
                    ended_at=span.end_time_unix_nano / 1e9,
                    attributes=_attributes(span.attributes),
                    events=tuple(event.name for event in span.events),
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                )
                for span in scope.spans
            ]
    return found


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
