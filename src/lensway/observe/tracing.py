"""Whether this process traces: decided once, at its start, by the variables that OpenTelemetry has for it."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping

import structlog

from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.observe.trace import Tracer

_log = structlog.get_logger("lensway.trace")


def tracer_of(service: str, environment: Mapping[str, str], clock: Clock) -> Tracer | None:
    """The tracer that the variables ask for, or None: they ask for none, or the extra `otel` is not installed.

    Raises:
        LenswayError: INVALID_REQUEST for variables that the library cannot use.
    """
    if not _is_wanted(environment):
        return None
    try:
        module = importlib.import_module("lensway.observe.otlp")
    except ImportError:
        _log.warning("tracing is configured but unavailable", hint="pip install 'lensway[otel]'")
        return None
    version = importlib.metadata.version("lensway")
    try:
        tracer: Tracer = module.OtlpTracer(service, version, environment, clock)
    except (ValueError, TypeError):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "the OTEL_* variables cannot be used",
            hint="See docs/how-to/operations.md, Traces.",
        ) from None
    return tracer


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").replace(" ", "").split(",")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if exporters != [""]:
        return "otlp" in exporters
    return any(environment.get(name) for name in endpoints)
