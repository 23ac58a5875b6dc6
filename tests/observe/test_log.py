"""What reaches the log of what others say: no credential, no forged line, nothing that drives a terminal."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
import structlog

from lensway.observe import log

PASSWORD = "canary-pa55/word"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["program", "terminal"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """What was logged, as text."""
    stream = request.param()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("websockets").level
    log.configure(level="info")
    yield stream.getvalue
    structlog.reset_defaults()
    root.handlers[:], root.level = before[:2]
    logging.getLogger("websockets").setLevel(before[2])


def fail() -> None:
    """Fails as a driver does that repeats what it was given, with the settings in its variables."""
    config = {"user": "reader", "password": PASSWORD}
    raise OSError(f"failed to resolve host {config['password']!r}")


def test_i9_a_defect_is_logged_without_its_text_and_variables(lines) -> None:
    try:
        fail()
    except OSError:
        structlog.get_logger("x").exception("attempt failed by a defect", job=7)
    assert "attempt failed by a defect" in lines()
    assert "OSError" in lines()
    assert re.search(r"test_log\.py:\d+ fail", lines()), "the place tells what to look at"
    assert PASSWORD not in lines()


def test_i9_a_librarys_message_is_logged_without_its_values(lines) -> None:
    try:
        fail()
    except OSError:
        logging.getLogger("driver").exception("cannot connect with %s", PASSWORD)
        logging.getLogger("asyncio").exception("Task exception was never retrieved: %s", PASSWORD)
        logging.getLogger("asyncio").error(f"Task failed: {PASSWORD}")
    assert (lines().count("cannot connect with %s"), lines().count("a task failed")) == (1, 2)
    assert PASSWORD not in lines()


def test_what_a_peer_says_forges_no_line_and_drives_no_terminal(lines) -> None:
    evil = "ins_1\n2026-01-01 [info] session opened runner=forged\r\x1b]0;owned\x07\x9b2J\u2028x"
    structlog.get_logger("x").info("session opened", runner="alpha", instance=evil, names=[evil], by={"who": evil})
    assert len(lines().splitlines()) == 1
    assert not {"\r", "\x07", "\x9b", "\u2028"} & set(lines())
    assert "\x1b]0" not in lines()
