"""Answers to a page that is open: the change is made, a question first, something to show, or another address."""

from __future__ import annotations

from starlette.responses import Response

from lensway.console.fragments import HEADERS


def done() -> Response:
    """The change is made; the page shows it by itself."""
    return _answer("", "done")


def ask(html: str) -> Response:
    """A dialog whose button with ``data-action="confirm"`` sends the same change again, with ``confirm=yes``."""
    return _answer(html, "ask")


def show(html: str) -> Response:
    """The change is made, and this dialog shows what came of it."""
    return _answer(html, "show")


def go(path: str) -> Response:
    """The change is made; the page moves on to this address of the Console."""
    return _answer(path, "go")


def part(html: str) -> Response:
    """A part of a page: a dialog to fill in, results."""
    return Response(html, 200, HEADERS, "text/html")


def _answer(text: str, outcome: str) -> Response:
    return Response(text, 200, {**HEADERS, "X-Lensway-Outcome": outcome}, "text/html")
