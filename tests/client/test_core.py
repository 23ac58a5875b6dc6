"""The core alone: what is repeated and when, what the body says about time, where a stream ends."""

from __future__ import annotations

import csv
import inspect
import io
import itertools
import json

import hypothesis
import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import strategies

import lensway
import lensway.client
from lensway import limits
from lensway.api import shapes
from lensway.client import core, core_arrow, core_operations, core_stream, exceptions
from lensway.client.core import Answer, Connection, Emit, Loss, Lost, Now, Pause, Read, Repeat, Request, Send
from lensway.errors import CODES, ErrorCode, LenswayError, Retry

VIA = Connection(url="http://127.0.0.1:1", key="sk_x")
OK = Answer(200, {}, b'{"count":7}', "http://127.0.0.1:1")
PAGE = b'{"rows":[{"id":%d}],"meta":{"lens":"l","count":1,"hasMore":%s,"nextCursor":%s,"durationMs":1,"requestId":"r",'


def failed(code: ErrorCode, *, headers=None, details=None) -> Answer:
    error = {"code": code.value, "message": "it failed", "requestId": "req_1", "details": details or {}}
    return Answer(CODES[code].status, headers or {}, json.dumps({"error": error}).encode(), "http://x")


def play(work, replies, *, seconds_per_answer: float = 0.0):
    """Run an operation against scripted answers on a clock of its own: what it returned, was sent, and waited."""
    clock, sent, waited, reply = 0.0, [], [], None
    replies = iter(replies)
    while True:
        try:
            effect = work.send(reply)
        except StopIteration as stop:
            return stop.value, sent, waited
        match effect:
            case Now():
                reply = clock
            case Send():
                sent.append(effect)
                clock += seconds_per_answer
                reply = next(replies)
            case Pause(least, most):
                assert 0 <= least <= most
                waited.append(effect)
                clock += most
                reply = None
            case other:
                raise AssertionError(other)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_what_is_repeated_is_what_the_table_allows(code: ErrorCode) -> None:
    rule = CODES[code].retry
    if rule is Retry.NEVER:
        with pytest.raises(exceptions.CLASSES[code]):
            play(core_operations.count(VIA, "orders"), [failed(code)])
        return
    if rule is Retry.LATER:
        with pytest.raises(exceptions.CLASSES[code]):
            play(core_operations.count(VIA, "orders"), [failed(code)])
    answer = failed(code, headers={"retry-after": "2"} if rule is Retry.LATER else {})
    found, sent, _ = play(core_operations.count(VIA, "orders"), [answer, OK])
    assert (found, len(sent)) == (7, 2)
    more_than_once = [answer] * 3
    if rule is Retry.LATER:
        assert play(core_operations.count(VIA, "orders"), [*more_than_once, OK])[0] == 7
    else:
        with pytest.raises(exceptions.CLASSES[code]):
            play(core_operations.count(VIA, "orders"), [*more_than_once, OK])


def test_a_lens_that_is_never_repeated_is_not_repeated_by_the_client() -> None:
    with pytest.raises(exceptions.RunnerFailedError):
        play(core_operations.count(VIA, "orders"), [failed(ErrorCode.RUNNER_FAILED, details={"retry": "never"}), OK])
    with pytest.raises(exceptions.RequestCancelledError):
        play(core_operations.count(VIA, "orders"), [failed(ErrorCode.CANCELLED, details={"reason": "on_request"}), OK])


def test_retry_after_is_honoured_and_the_time_is_not_exceeded() -> None:
    busy = failed(ErrorCode.OVERLOADED, headers={"retry-after": "4"})
    _, _, waited = play(core_operations.count(VIA, "orders"), [busy, OK])
    assert waited[0].least_seconds == 4
    with pytest.raises(exceptions.OverloadedError) as caught:
        play(core_operations.count(Connection(url="http://x", key="k", timeout_seconds=3), "orders"), [busy, OK])
    assert caught.value.retry_after_seconds == 4, "waiting longer than the caller does would be of no use"


def test_a_server_that_stays_away_is_waited_for_within_the_timeout() -> None:
    away = Lost(Loss.UNSENT, "connection refused", "http://x")
    with pytest.raises(exceptions.UnreachableError, match="connection refused"):
        play(core_operations.count(VIA, "orders"), [away] * 99)
    found, sent, waited = play(core_operations.count(VIA, "orders"), [away] * 8 + [OK])
    assert (found, len(sent)) == (7, 9)
    assert sum(pause.least_seconds for pause in waited) > 5, "a restart takes seconds"
    assert all(pause.least_seconds < pause.most_seconds for pause in waited), "callers do not come back together"
    with pytest.raises(exceptions.UnreachableError):
        play(core_operations.count(Connection(url="http://x", key="k", attempts_max=1), "orders"), [away, OK])
    with pytest.raises(exceptions.QueryTimeoutError, match="within 60 s"):
        play(core_operations.count(VIA, "orders"), [Lost(Loss.SILENT, "ReadTimeout", "http://x"), OK])
    proxy = Answer(502, {}, b"<html>Bad Gateway</html>", "http://x")
    assert play(core_operations.count(VIA, "orders"), [proxy, OK])[0] == 7
    with pytest.raises(exceptions.UnreachableError, match="HTTP 404"):
        play(core_operations.count(VIA, "orders"), [Answer(404, {}, b"<html>", "http://x"), OK])


def test_a_change_is_sent_again_only_when_it_never_left() -> None:
    def change():
        return core_operations.call(VIA, "POST", "/v1/keys", {"kind": "sk", "name": "x"})

    assert play(change(), [Lost(Loss.UNSENT, "refused", "x"), OK])[0] == {"count": 7}
    for reply in (Lost(Loss.CUT, "ReadError", "x"), failed(ErrorCode.OVERLOADED), failed(ErrorCode.INTERNAL)):
        with pytest.raises(LenswayError):
            play(change(), [reply, OK])
    assert play(core_operations.call(VIA, "GET", "/v1/keys"), [Lost(Loss.CUT, "ReadError", "x"), OK])[0] == {"count": 7}


def test_client_and_server_stop_at_the_same_time() -> None:
    busy = failed(ErrorCode.OVERLOADED, headers={"retry-after": "1"})
    _, sent, _ = play(core_operations.query(Connection(url="http://x", key="k", timeout_seconds=20), "l"), [page(1)])
    assert json.loads(sent[0].request.content(sent[0].remaining_seconds))["timeoutMs"] == 20_000
    _, sent, _ = play(core_operations.query(VIA, "l", timeout_ms=500), [page(1)])
    assert json.loads(sent[0].request.content(sent[0].remaining_seconds))["timeoutMs"] == 500
    _, sent, _ = play(core_operations.query(VIA, "l"), [busy, page(1)], seconds_per_answer=40)
    bodies = [json.loads(each.request.content(each.remaining_seconds)) for each in sent]
    assert "timeoutMs" not in bodies[0], "the server's own limit is shorter"
    assert bodies[1]["timeoutMs"] < 20_000, "what is left of the minute"
    _, sent, _ = play(core_operations.query(VIA, "l", timeout_ms=120_000), [page(1)])
    assert sent[0].remaining_seconds > 120, "a call may ask for more time than the client"
    export = core_operations.export_request("l")
    assert export.patience_seconds(1) > 3600
    assert (
        core_operations.any_stream_request("GET", "/v1/events", accept="text/event-stream").patience_seconds(1) is None
    )


def page(number: int, *, cursor: str | None = None) -> Answer:
    more = PAGE % (number, b"true" if cursor else b"false", json.dumps(cursor).encode())
    return Answer(200, {}, more + b'"route":{"via":"inline","attempts":1}}}', "http://x")


def test_what_is_not_lensways_is_said_to_be_so() -> None:
    for body in (b"<html>", b"[]", b'{"rows": 1}'):
        with pytest.raises(exceptions.UnreachableError, match="not Lensway's"):
            play(core_operations.query(VIA, "l"), [Answer(200, {}, body, "http://x")])


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "nonsense"},
        {"url": "ftp://x"},
        {"url": "http://user:secret@x"},
        {"url": "http://x?y=z"},
        {"key": ""},
        {"key": "sk_\n"},
        {"timeout_seconds": 0},
    ],
)
def test_what_can_never_work_is_refused_without_showing_it(wrong) -> None:
    with pytest.raises(exceptions.InvalidRequestError) as caught:
        Connection(**{"url": "https://x", "key": "sk_x", **wrong}).check()
    assert "secret" not in str(caught.value)
    assert "sk_" not in repr(Connection(url="http://x", key="sk_x"))


# --- streams --------------------------------------------------------------------------------------------------------------

ROWS = [b'{"id":%d,"text":"%s"}\n' % (number, b"x" * (number % 7)) for number in range(20)]
NDJSON = b"".join(ROWS) + b'{"$end":{"rows":20}}\n'
ARROW = b"\xff\xff\xff\xff schema and batches \xff\xff\xff\xff\x00\x00\x00\x00"
PARQUET = b"PAR1 columns and footer PAR1"
MEDIA = {"ndjson": NDJSON, "arrow": ARROW, "parquet": PARQUET}


def arriving_from(accept: str) -> core_stream.Incoming:
    request = core.Request(method="POST", path="/v1/query/x/export", accept=accept, is_stream=True)
    return core_stream.Incoming(Connection(url="http://x", key="sk_x"), request)


def arriving(format: str, pieces, *, steps=core_stream.chunks):
    """What a reader gets from these pieces; a `Lost` among them breaks the stream."""
    accept = core_operations.ACCEPT[format]
    incoming = arriving_from(accept)
    incoming.begin(Answer(200, {"content-type": accept.partition(";")[0], "x-request-id": "req_1"}, b"", "x"))
    pieces, given, reply = iter([*pieces, b""]), [], None
    running = steps(incoming)
    while True:
        try:
            step = running.send(reply)
        except StopIteration:
            return given
        if isinstance(step, Emit):
            given.append(step.item)
            reply = None
        else:
            assert isinstance(step, Read)
            reply = next(pieces)


@hypothesis.given(strategies.lists(strategies.integers(0, len(NDJSON)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_rows(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(NDJSON)]
    pieces = [NDJSON[start:end] for start, end in itertools.pairwise(edges) if start < end]
    given = arriving("ndjson", pieces)
    assert b"".join(given) == b"".join(ROWS)
    assert all(part.endswith(b"\n") for part in given), "whole lines"
    assert [row["id"] for row in arriving("ndjson", pieces, steps=core_stream.rows)] == list(range(20))


@pytest.mark.parametrize("format", MEDIA)
def test_a_stream_that_is_cut_at_any_byte_is_incomplete(format: str) -> None:
    whole = MEDIA[format]
    assert b"".join(arriving(format, [whole])) in (whole, b"".join(ROWS))
    for end in range(len(whole)):
        with pytest.raises(exceptions.IncompleteStreamError) as caught:
            arriving(format, [whole[:end]] if end else [])
        assert (caught.value.request_id, caught.value.is_answer) == ("req_1", False)


def test_a_stream_that_lacks_or_repeats_rows_is_incomplete() -> None:
    for rows in (ROWS[:-1], [*ROWS, ROWS[0]]):
        with pytest.raises(exceptions.IncompleteStreamError, match="says 20"):
            arriving("ndjson", [b"".join(rows) + b'{"$end":{"rows":20}}\n'])
    with pytest.raises(exceptions.IncompleteStreamError, match="ReadError"):
        arriving("csv", [b"a,b\r\n", Lost(Loss.CUT, "ReadError", "x")])
    assert arriving("csv", [b"a,b\r\n"]) == [b"a,b\r\n"], "CSV has no mark; HTTP tells"


@hypothesis.given(strategies.lists(strategies.lists(strategies.text(), min_size=2, max_size=2)), strategies.data())
def test_rows_of_csv_are_counted_however_they_are_quoted_and_split(rows: list[list[str]], data) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["a", "b"], *rows])
    whole = buffer.getvalue().encode("utf-8", "replace")
    cut = data.draw(strategies.integers(0, len(whole)))
    incoming = arriving_from("text/csv")
    incoming.begin(Answer(200, {"content-type": "text/csv; charset=utf-8"}, b"", "x"))
    assert incoming.take(whole[:cut]) + incoming.take(whole[cut:]) == whole
    assert incoming.rows_received == len(rows)


def arrow_stream(*batches: list[int], compression: str | None = None) -> bytes:
    buffer = io.BytesIO()
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with pyarrow.ipc.new_stream(buffer, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(pyarrow.record_batch([batch, [str(each) for each in batch]], schema=schema))
    return buffer.getvalue()


@hypothesis.given(
    strategies.lists(strategies.integers(0, 50), max_size=8),
    strategies.sampled_from([None, "zstd"]),
    strategies.integers(1, 400),
)
def test_rows_of_arrow_are_counted_in_any_pieces(sizes: list[int], compression: str | None, piece: int) -> None:
    whole = arrow_stream(*(list(range(size)) for size in sizes), compression=compression)
    counted = core_arrow.BatchCount()
    for start in range(0, len(whole), piece):
        counted.take(whole[start : start + piece])
    assert counted.rows == sum(sizes)


@hypothesis.given(strategies.binary(), strategies.integers(0, 200))
def test_what_is_no_arrow_only_ends_the_counting(noise: bytes, at: int) -> None:
    whole = bytearray(arrow_stream([1, 2, 3]))
    whole[at : at + len(noise)] = noise
    counted = core_arrow.BatchCount()
    counted.take(bytes(whole))
    assert counted.rows is None or counted.rows >= 0
    counted.take(bytes(whole))


def test_a_line_without_an_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENT_LINE_BYTES_MAX", 1000)
    with pytest.raises(exceptions.IncompleteStreamError, match="longer than"):
        arriving("ndjson", [b"x" * 600, b"x" * 600])


def test_the_body_has_what_was_said_and_nothing_else() -> None:
    assert core_operations.query_body(shapes.QueryRequest) == {}
    body = core_operations.query_body(
        shapes.QueryRequest, order_by=["a:desc", {"field": "b", "dir": "asc"}, "c"], limit=5, where=None
    )
    assert body == {
        "limit": 5,
        "orderBy": [{"field": "a", "dir": "desc"}, {"field": "b", "dir": "asc"}, {"field": "c"}],
    }
    assert core_operations.segment("a/b c") == "a%2Fb%20c"
    assert Request(method="GET", path="/").repeat is Repeat.READ
    assert core.error_of(failed(ErrorCode.CONFLICT), 1).code is ErrorCode.CONFLICT


@pytest.mark.parametrize("kind", [lensway.Client, lensway.AsyncClient])
def test_both_clients_show_the_parameters_and_the_text_of_their_methods(kind: type) -> None:
    for name in ("query", "pages", "rows", "count", "arrow", "export", "encoded", "explain", "call", "stream"):
        method = getattr(kind, name)
        assert method.__doc__
        assert (method.__name__, next(iter(inspect.signature(method).parameters))) == (name, "self")
    assert "where: 'Where | None' = None" in str(inspect.signature(kind.query))
    assert list(inspect.signature(kind.export).parameters)[:3] == ["self", "lens", "format"]
    public = {name for name in dir(lensway.Client) if not name.startswith("_")}
    assert public == {name for name in dir(lensway.AsyncClient) if not name.startswith("_")}


def test_the_package_gives_the_client_when_it_is_asked_for() -> None:
    assert lensway.connect is lensway.client.connect
    assert "connect_async" in dir(lensway)
    with pytest.raises(AttributeError, match="nothing"):
        lensway.nothing  # noqa: B018
