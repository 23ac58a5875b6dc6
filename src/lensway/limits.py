"""Every bound of the system, with its unit last in the name and its reason beside it.

Meeting a bound gives a typed error or back-pressure, never silent loss. Tests assert the relations between bounds.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- requests -------------------------------------------------------------------------------------------------------------
REQUEST_BODY_BYTES_MAX: Final = 1 * MIB
"""A query or a control-plane object; larger bodies are `payload_too_large`."""
REQUEST_NESTING_MAX: Final = 16
"""Depth of `where`; deeper is refused before any recursion."""
WHERE_NODES_MAX: Final = 1_000
"""Comparisons in one `where`."""
PATTERN_CHARACTERS_MAX: Final = 500
"""Longest pattern of `$like`, `$ilike`, `$contains`, `$startsWith` and `$endsWith`. A database compares a pattern with one value
without looking at cancels; the time grows with pattern times value."""
PATTERN_WILDCARDS_MAX: Final = 100
"""Wildcards `%` of one pattern: databases recurse once for each."""
PATTERNS_MAX: Final = 100
PATTERNS_CHARACTERS_MAX: Final = 1_000
"""Pattern conditions of one `where`, and their characters in all: databases test all conditions of a row between two looks at
cancels."""
PATTERN_NATIVE_BYTES_MAX: Final = 16 * KIB
"""Larger values are matched by Lensway's own function on SQLite, whose LIKE nothing can interrupt. With the patterns above, one
row costs SQLite at most some 0.1 s."""
PATTERN_STEPS_PER_CHECK: Final = 4_096
"""Characters of a value that Lensway's own matching reads between two looks at the deadline."""
IN_VALUES_MAX: Final = 10_000
"""Values in one `$in` or `$nin`."""
ORDER_TERMS_MAX: Final = 16
"""Terms of one `orderBy`, before the primary key: a cursor's condition nests once for each."""
TEXT_VALUE_BYTES_MAX: Final = 64 * KIB
"""One text or bytes value in a request."""
NUMBER_CHARACTERS_MAX: Final = 1_000
"""Digits of one number in a request, and of its exponent's value ten times as many: more than any column holds."""
NAME_CHARACTERS_MAX: Final = 63
"""Names of objects and fields; PostgreSQL's own limit for identifiers."""
SUGGESTION_NAMES_MAX: Final = 4_000
"""Names that are looked at for one that was meant, when an unknown one was asked for: about 2 ms."""
SUGGESTION_CANDIDATES_MAX: Final = 32
"""Names compared in full with the unknown one: those that share most of its beginning or end."""
ROWS_PER_PAGE_DEFAULT: Final = 100
ROWS_PER_PAGE_MAX: Final = 10_000
"""Above it 400, never a clamp."""
OFFSET_MAX: Final = 10_000_000
PAGE_BYTES_MAX: Final = 8 * MIB
"""A JSON page is held until it is complete, so it is bounded. A larger one is streamed, over HTTP/1.0 `limit_exceeded`."""
PAGE_BYTES_TOTAL_MAX: Final = 128 * MIB
"""All JSON pages held by one node; beyond it they are streamed, over HTTP/1.0 `overloaded`."""
TAKEN_AT_ONCE_BYTES_MAX: Final = 16 * KIB
"""A complete result of this size counts as taken by its caller at once: no more than what waits for a caller in any case."""
CURSOR_BYTES_MAX: Final = 16 * KIB
"""It stands in a header or a trailer too. Longer values of the order are `limit_exceeded` where a page would end with them."""
KEY_FACTS_SECONDS: Final = 5.0
"""How long a bridge trusts what the catalog said of a table's keys: no query looks twice, and migrations are seen soon."""
KEY_LOOK_SECONDS: Final = 2.0
"""All that a connection test spends on looking for rows of views that share a key; a quarter of it on one view."""
FILE_KEY_FACTS_SECONDS: Final = 1.0
"""The same of a file, whose catalog is read in microseconds."""
QUERY_TIMEOUT_MS_DEFAULT: Final = 30_000
QUERY_TIMEOUT_MS_MAX: Final = 3_600_000
EXPORT_TIMEOUT_MS_DEFAULT: Final = 3_600_000
STALL_TIMEOUT_SECONDS: Final = 60.0
"""A caller that takes nothing for so long is cancelled."""
STALL_GRACE_SECONDS: Final = 1.0
"""A connection is dropped so much later than its job is cancelled, so that the record says what really happened."""
HTTP_CONNECTIONS_MAX: Final = 4_096
"""Connections of callers; one more is answered `overloaded`. With what each may leave unread that is bounded memory."""
HTTP_BACKLOG: Final = 2_048
"""Connections that the kernel completes before this process accepts them; it has its own limit below, as a rule."""
HTTP_STRANGERS_MAX: Final = 3_072
"""Of these, connections on which no good key was shown yet; then the oldest of the address with the most is dropped."""
HTTP_STRANGERS_PER_ADDRESS_MAX: Final = 1_024
"""The same of one address or /64 of IPv6: many people may share one."""
HTTP_PATIENCE_SECONDS: Final = 1.0
"""Time that a stranger has for its request before one from the same crowded address may take its place."""
HTTP_HEAD_BYTES_MAX: Final = 32 * KIB
"""Request line and headers; larger is `payload_too_large`. nginx takes as much by default."""
HTTP_HEADERS_MAX: Final = 128
"""Headers of a request; more are `payload_too_large`. In memory a header of five bytes takes thirty times as much."""
HTTP_READ_BYTES_MAX: Final = 16 * KIB
"""Read from a caller at once. Requests sent ahead of their turn wait in one such piece, and then reading pauses."""
HTTP_AHEAD_PER_TURN_MAX: Final = 8
"""Requests sent ahead that are started in one turn of the event loop: about a millisecond for all callers who do so together."""
HTTP_PIECES_PER_TURN_MAX: Final = 64
"""Pieces of what was sent ahead that are parsed in one turn; a caller may send blank lines only, each of which is a piece."""
CALLER_LOOK_SECONDS: Final = 0.1
"""So often the kernel is asked whether a caller is gone that is not read, because it has sent its next request already."""
CALLER_IDLE_LOOK_SECONDS: Final = 1.0
"""The same where only the connection itself would be kept, and no query."""
HSTS_SECONDS: Final = 31_536_000
"""A year: so long browsers use TLS only, once they have seen an answer over it."""
PATHS_REMEMBERED_MAX: Final = 1_000
"""Paths of requests whose routes are found at once."""
PATHS_REMEMBERED_BYTES_MAX: Final = 256 * KIB
HTTP_REQUEST_SECONDS_MAX: Final = 30.0
"""A caller that has not sent its whole request by then is dropped."""
HTTP_IDLE_SECONDS: Final = 75
"""A kept connection that asks nothing is closed then: later than the 60 s of common load balancers and pools, so that they close
first. A request that meets a close on its way is an error that the caller sees."""
HTTP_UNWRITTEN_BYTES_MAX: Final = 64 * KIB
"""A page up to this size is written at once and no longer counted as held, whether its caller reads or not."""
HTTP_WRITE_PAUSE_BYTES: Final = 16 * KIB
"""What an HTTP connection buffers for a caller that does not read, before the writer has to wait; one chunk comes on top. Until
the caller has read most of it, no request that it sent ahead is started."""
HTTP_UNSENT_BYTES_MAX: Final = 128 * KIB
"""What the kernel takes from us and cannot send yet, per connection; its own default is up to 4 MiB."""
COMPRESS_INLINE_BYTES_MAX: Final = 16 * KIB
"""Larger pieces are compressed in a thread: some tenths of a millisecond in which the loop serves others."""
COMPRESS_BYTES_MIN: Final = 8 * KIB
"""Smaller pages are sent as they are: they fit into a few packets, and compressing costs more than it saves."""
EXPORT_ROWS_DEFAULT: Final = 10_000_000
EXPORT_BYTES_DEFAULT: Final = 16 * GIB
ROW_BYTES_DEFAULT: Final = 16 * MIB
"""One encoded row; a lens may lower or raise it up to ROW_BYTES_MAX."""
ROW_BYTES_MAX: Final = 64 * MIB
GIVE_WAY_FROM_BYTES: Final = 256 * KIB
"""A result that has given so much is large: from then on its rows give way to small results."""
RIGHT_OF_WAY_SECONDS: Final = 0.05
"""A small result goes before large ones for so long; one that takes longer waits for its database, not for them."""
GIVE_WAY_SECONDS_MAX: Final = 0.02
"""Longest rest of a large result; after it, its rows flow for as long."""
TRACE_STATE_CHARACTERS_MAX: Final = 512
"""A caller's `tracestate` that is passed on; the W3C asks for at least so much, and longer ones are left out."""
SPAN_TABLES_CHARACTERS_MAX: Final = 500
"""The tables of one plan as a span names them."""
TRACE_FLUSH_SECONDS: Final = 2.0
"""Longest wait for the last spans to be sent when a process ends; a collector that hangs keeps nobody longer."""
REQUEST_RING_ENTRIES: Final = 10_000
"""Finished requests that a node remembers for `GET /v1/requests`."""

# --- runner link ----------------------------------------------------------------------------------------------------------
DATA_FRAME_BYTES_MAX: Final = 64 * KIB
"""Payload of one data frame: small enough that control frames never wait long behind one."""
SHORT_RESULT_BYTES_MAX: Final = 16 * KIB
"""A result up to this size goes before the rows of large ones; 6 ms of a link of 20 Mbit/s."""
CONTROL_FRAME_BYTES_MAX: Final = 256 * KIB
"""Payload of one control frame; larger assignment sets travel in parts."""
MESSAGE_BYTES_MAX: Final = 512 * KIB
"""One WebSocket message, which holds one or more whole frames."""
ASSIGNMENT_PART_BYTES_MAX: Final = 128 * KIB
"""Sources are packed into one part of an assignment set up to here."""
ASSIGNMENT_PARTS_MAX: Final = 256
"""Parts of one assignment set: 32 MiB."""
CONTROL_QUEUE_BYTES_MAX: Final = 48 * MIB
"""Control frames that a peer has left unread, at their largest; beyond it the session ends as overloaded. A whole set fits."""
ATTEMPTS_OPEN_MAX: Final = 4_096
"""Attempts that one session may have open, answered or not. A heartbeat names no more."""
FRAMES_AT_ONCE_MAX: Final = 32
"""Frames of one peer handled in one turn of the loop: about 1 ms. The next ones wait for the other peers' turns."""
FRAMES_PER_SECOND: Final = 500.0
"""Frames that a peer may send without having been asked: 1 % of the loop. An honest one sends about one a second."""
FRAMES_PER_ATTEMPT_SECOND: Final = 50.0
"""Frames a second more for each open attempt: an export of a slow database sends what it has every 25 ms."""
FRAMES_PER_OFFER: Final = 8
"""Frames more for each offer: its acceptance, its end and some rows."""
FRAMES_BURST: Final = 2_000
"""Frames that a peer may send at once. Beyond its allowance it is not read for a while."""
FRAME_FREE_BYTES: Final = 4 * KIB
"""Each such piece of a message pays for one frame: rows in bulk are bounded by credit alone."""
FLOOD_SECONDS_MAX: Final = 4.0
"""A peer that has been beyond its allowance for so long without a break is cut off: `overloaded`."""
PAUSE_SECONDS_MAX: Final = 0.25
"""A peer in debt is looked at this often: its link may have ended meanwhile."""
LINK_WAITING_BYTES_MAX: Final = MIB
"""Messages of one runner that wait for their reader; more is left in the socket."""
LINK_FRAMES_AT_ONCE_MAX: Final = 64
"""WebSocket frames parsed in one turn of the loop: about 1 ms, even if each is a ping that has to be answered."""
LINK_CONTROLS_PER_SECOND: Final = 500.0
"""Pings, pongs and fragments that a peer may send: 1 % of the loop. Rows in bulk pay for the pings that ask about them."""
LINK_CONTROLS_BURST: Final = 500
SOURCE_STATES_MAX: Final = 1_000
"""Sources that one heartbeat or confirmation reports on; more travel in further reports. Handling them takes about 1 ms."""
REPORTS_PER_SECOND: Final = 4.0
"""Reports about sources and sets that take effect at once. Later ones are merged and take effect with the next heartbeat."""
REPORTS_BURST: Final = 32
PUSHES_PER_SECOND: Final = 0.5
"""Repeated pushes of a set to a runner that says it has another one; each costs the loop a moment for each source."""
PUSHES_BURST: Final = 8
SEALED_REUSE_SECONDS: Final = 60.0
"""Settings that were sealed for an instance are sent again for this long instead of being sealed anew: 0.1 ms a source."""
SESSION_EVENTS_PER_SECOND: Final = 10.0
"""Events that one session causes. Beyond the burst, what changes faster is told with its latest state, later."""
SESSION_EVENTS_BURST: Final = 50
"""Each event goes to up to EVENT_SUBSCRIBERS_MAX watchers, so that this many hold the loop for some 10 ms."""
SESSION_EVENTS_LATE_SECONDS: Final = 0.25
"""Pause between two looks at what is still to be told."""
END_MARK_BYTES_MAX: Final = 64 * KIB
"""The encoded end mark of a result. It holds the key of the last row, of which a cursor is made."""
FAILURE_BYTES_MAX: Final = 64 * KIB
"""The encoded failure that a runner reports: message, hint and details at their largest."""
ROW_CHECKED_BYTES_MAX: Final = MIB
"""Longest line of a runner's NDJSON stream that is checked for structure: what is kept of a line until its end has come."""
INSTANCE_CHARACTERS_MAX: Final = 40
"""The id that a runner's process gives itself. Every attempt of every remembered request holds it."""
RUNNER_TEXT_CHARACTERS_MAX: Final = 200
"""Short texts of a runner that people see: causes, versions, host names. Longer ones are cut."""
TEST_REPORT_BYTES_MAX: Final = 256 * KIB
"""The document of a connection test. What is kept of it with its event is cut to the next two bounds."""
TEST_WARNINGS_MAX: Final = 8
"""Warnings of one connection test that are shown."""
RUNNER_HINT_CHARACTERS_MAX: Final = 2_000
"""A hint of a runner that people see: longer ones are cut."""
TABLES_BYTES_MAX: Final = 4 * MIB
"""The document of an introspection: some 40,000 tables. Decoding it holds the loop for about 20 ms."""
SCAFFOLD_TABLES_MAX: Final = 500
"""Tables that one scaffold describes, with a job for each: about 10 MiB of documents at once."""
SCAFFOLD_JOBS_MAX: Final = 4
"""Jobs of one scaffold under way at once: they leave connections of the source to queries."""
WELCOME_INTERVAL_MS_MAX: Final = 60_000
"""Longest heartbeat interval that a runner takes from a gateway; the fence may be ten times as long."""
TOLD_SECONDS_MAX: Final = 300.0
"""Longest wait before dialling again that a runner takes from a gateway: no gateway can send it away for good."""
SOURCES_PER_RUNNER_MAX: Final = 20_000
"""Sources of one assignment set that a runner takes. Larger sets end the session."""
ATTEMPTS_REMEMBERED_MAX: Final = 4_096
"""Jobs whose highest attempt a runner remembers, the latest ones; the fence against late offers."""
PLAN_BYTES_MAX: Final = 192 * KIB
"""An encoded plan rides in one offer."""
CREDIT_WINDOW_BYTES: Final = 512 * KIB
"""Bytes that an executor may have sent and the caller not yet taken, per job."""
CREDIT_GRANT_BYTES_MIN: Final = 128 * KIB
"""Smaller grants are saved up: one credit frame for several data frames."""
PACE_WINDOW_BYTES_FIRST: Final = 16 * KIB
"""Rows under way on a link of which nothing is known: seconds of the slowest that is of use."""
PACE_WINDOW_BYTES_MIN: Final = 8 * KIB
PACE_WINDOW_BYTES_MAX: Final = 4 * MIB
PACE_PROMPT_SECONDS: Final = 0.04
"""Rows that arrive within this, beyond the round trip, delay nothing: the window grows, and doubles within half of it. After
three times it, it halves. So a query of one row waits for some 80 ms of an export's rows on a slow link, and a heartbeat too."""
HOLD_BACK_BYTES: Final = 256 * KIB
"""Rows of a stream held back so that a runner lost early costs the caller nothing."""
HOLD_BACK_SECONDS: Final = 0.050
NODE_CREDIT_BYTES_MAX: Final = 256 * MIB
"""Sum of all windows of one node; beyond it `overloaded`."""
BACKLOG: Final = 1_024
"""Connections that the kernel completes before they are accepted: of thousands of runners that come back in a second, those
that find it full ask again after one and three seconds."""
HANDSHAKE_TIMEOUT_SECONDS: Final = 5.0
"""From the TCP connection to a complete `hello`."""
HANDSHAKES_PENDING_MAX: Final = 512
"""Connections to the gateway without a good token, TLS handshakes among them; then the oldest of the address with the most is
dropped. Thousands of runners that come back at once stand in the kernel's backlog meanwhile."""
HANDSHAKE_PATIENCE_SECONDS: Final = 2.5
"""Time that such a connection has before one from the same crowded address may take its place."""
LINKS_SILENT_PER_RUNNER_MAX: Final = 32
"""Links of one runner without a `hello`: as many as it may have sessions, so that all its instances can come back at once."""
REFUSALS_FIRST_SECONDS: Final = 1.0
REFUSALS_LOG_SECONDS: Final = 60.0
"""Refused connections are counted in one line of the log for each listener and so many seconds."""
CLOSE_TIMEOUT_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 0.5
"""The last word and the closing of a link take at most so long, then it is cut: a revoked runner is gone within a second."""
LINK_UNANSWERED_SECONDS: Final = 25.0
"""What was sent on a runner's link is acknowledged by then, or the kernel ends the connection. Heartbeats find out earlier."""
SESSIONS_MAX: Final = 10_000
"""Connections of runners on one node; one more is refused before its upgrade."""
SESSIONS_PER_RUNNER_MAX: Final = 32
"""Instances of one runner; the newest is refused, so that two never take turns to evict each other."""

# --- liveness -------------------------------------------------------------------------------------------------------------
HEARTBEAT_SECONDS: Final = 2.0
HEARTBEAT_GRID_SECONDS: Final = 0.02
"""Heartbeats are due, and silence is looked at, at multiples of this: those of many sessions share a turn of the loop, which
costs more than one of them, and 5,000 sessions make such a turn no longer than 2 ms."""
FRESH_HEARTBEATS: Final = 2.5
"""An answer to what was sent longer ago than so many intervals is no sign of life: a network may have held it back."""
SUSPECT_SECONDS: Final = 5.0
DEAD_SECONDS: Final = 10.0
RUNNER_FENCE_SECONDS: Final = 8.0
"""After *sending* its last acknowledged heartbeat: before the gateway calls the session dead and dispatches again."""
FLEET_LARGE_SESSIONS: Final = 2_000
"""Sessions on one node from which the slow timings hold: heartbeats cost about 13 % of a core for 2,000 each second."""
HEARTBEAT_LARGE_SECONDS: Final = 5.0
SUSPECT_LARGE_SECONDS: Final = 12.0
DEAD_LARGE_SECONDS: Final = 25.0
RUNNER_FENCE_LARGE_SECONDS: Final = 20.0
OFFER_TIMEOUT_SECONDS: Final = 0.5
"""An offer unanswered for so long goes elsewhere and makes the session suspect: a link needs a shorter round trip."""
ACCEPT_DELAY_SECONDS: Final = 0.002
"""An accept waits so long for the end of its query, to share its message; far below the offer's time-out."""
LOOP_STALL_SECONDS: Final = 0.5
"""A runner whose loop stood still for longer discards the offers it has not answered."""

# --- dispatch -------------------------------------------------------------------------------------------------------------
ATTEMPTS_MAX: Final = 3
RUNNERS_LOST_MAX: Final = 2
"""Two runners lost while executing one job: poison."""
OFFERS_PER_JOB_MAX: Final = 32
"""Refusals and unanswered offers are not attempts, but they are bounded too."""
REVIVAL_SECONDS_MAX: Final = 2.0
"""Longest wait for a session that may come back before `no_runners_online`; also min(…, remaining / 4)."""
LAST_SESSION_GRACE_SECONDS: Final = 2.0
STARTUP_GRACE_SECONDS: Final = 5.0
JOBS_PER_SESSION_DEFAULT: Final = 64
"""Capacity that a runner declares unless told otherwise."""
JOBS_INLINE_MAX: Final = 256
JOBS_PER_PAIR_MAX: Final = 32
"""Queries of one source given to one place: twice its connections, so that one always waits beside the pool and none idles."""
BUSY_BACKOFF_SECONDS: Final = 0.25
"""A place that refused as busy is not asked again for the same source before."""
NOT_ASSIGNED_MAX: Final = 2
"""A session that still says `not_assigned` after its set was pushed so often is left out for this job."""
REPORTS_MISSED_MAX: Final = 2
"""Heartbeats in a row that do not list an attempt that we count on: then it is lost."""
NODE_STALL_SECONDS: Final = 0.1
"""A timer of this node that is so late says that the node itself stood still; nobody else is blamed for silence then."""
NODE_STALL_GRACE_SECONDS: Final = 0.25
"""What peers said meanwhile is read within this time after a stall."""
RUNNER_RETURN_SECONDS: Final = 120.0
"""A runner that is back so soon after the server's start is shown as it was since before the restart."""
RUNNER_HISTORY_ENTRIES_MAX: Final = 10_000
"""Runners whose last session is remembered after it was lost."""
SIGHTINGS_PER_WRITE_MAX: Final = 200
"""Runners whose last sighting is written in one transaction: thousands that come back at once are a few writes, and a change of
the catalog waits behind one of them at most."""
QUEUE_JOBS_MAX: Final = 1_000
"""Jobs that wait, for a busy place or for a runner to come back; one more is `overloaded`."""
QUEUE_WAIT_SECONDS_MAX: Final = 10.0
"""Longest wait for a busy place while a line is young: a burst."""
QUEUE_STANDING_SECONDS: Final = 10.0
"""A line that has not been empty for so long is no burst: more is asked than can be done."""
QUEUE_WAIT_STANDING_SECONDS: Final = 4.0
"""Longest wait in such a line: at half load it is gone 2 × this after the excess ends, so that latency is normal within 10 s."""
EJECT_AFTER_FAILURES: Final = 3
EJECT_SECONDS: Final = 5.0
EJECT_SECONDS_MAX: Final = 60.0
SLOW_PAIR_FACTOR: Final = 3.0
"""A pair slower than this × the best gets only probes."""
SLOW_PAIR_SHARE: Final = 0.005
EQUAL_SCORE_RATIO: Final = 1.25
"""Scores within 25 % of the best are equal and take turns."""
RETRY_BUDGET_RATIO: Final = 0.1
"""Tokens earned per request and source; a failed attempt spends one: ≤ 1.1 × requests reach a failing source."""
RETRY_BUDGET_TOKENS_MAX: Final = 10.0
RETRY_AFTER_SECONDS: Final = 2.0

# --- runner ---------------------------------------------------------------------------------------------------------------
RECONNECT_SECONDS_MIN: Final = 0.25
RECONNECT_SECONDS_MAX: Final = 15.0
RECONNECT_STABLE_SECONDS: Final = 30.0
"""Back-off resets only after a session has lived so long."""
RECONNECT_EAGER_TRIES: Final = 6
"""So many waits are at most four times the least; then each may be twice the one before."""
RECONNECT_REFUSED_SECONDS: Final = 0.5
"""Longest wait after a dial that nobody listened to; far below `REVIVAL_SECONDS_MAX`, for which queries wait after a restart."""
RECONNECT_REFUSALS_MAX: Final = 120
"""Then (after a minute) waits grow as after any failure."""
RECONNECT_TOLD_SECONDS_MAX: Final = 60.0
"""Longest wait that a peer may ask a runner for; a proxy's or a broken gateway's `Retry-After` must not keep it away for ever."""
REFUSED_AGAIN_SECONDS: Final = 30.0
"""A runner that the gateway refuses and that has its token in a file dials again after so long, or when the file changes."""
TOKEN_LOOK_SECONDS: Final = 1.0
"""How often a refused runner reads its token file."""
GATEWAY_ADDRESSES_MAX: Final = 8
"""Addresses of the gateway's name that one dial tries, each for half the handshake's time."""
RUNNER_STALL_GRACE_SECONDS: Final = 0.1
"""What waited in the socket during a stall has been read by then."""
RUNNER_WATCH_SECONDS: Final = 0.1
FLUSH_SECONDS: Final = 0.025
"""Rows of a stream wait at most so long for a frame to fill up."""
PROBE_SECONDS: Final = 2.0
"""A runner looks so often at each source of which no query has told it how it is."""
PROBES_AT_ONCE_MAX: Final = 32
"""Sources that one runner looks at in the same moment; with very many assigned each has its turn later."""
DRAIN_SECONDS: Final = 30.0
"""A draining runner hands back what has not finished by then."""

COME_BACK_MS: Final = 1_000
"""A server that stops tells its runners to dial again after about so long; a restart takes about as long."""

# --- databases ------------------------------------------------------------------------------------------------------------
SOURCE_HOSTS_MAX: Final = 16
"""Hosts that one source lists; each that does not answer costs a new connection its timeout."""
CONNECT_TIMEOUT_SECONDS_MAX: Final = 60
"""Highest `connect_timeout` of a source."""
CONNECT_TIMEOUT_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 2.0
"""A name that cannot be looked up by then is as good as unreachable: another runner may reach the database meanwhile."""
LOOKUP_FAILED_SECONDS: Final = 0.5
"""A name that could not be looked up fails at once for so long: many askers at once are one question."""
LOOKUPS_PER_NAME_MAX: Final = 2
"""Look-ups of one name under way, the second one when the first is late: its question or answer may have been lost."""
LOOKUPS_LATE_MAX: Final = 64
"""Look-ups under way, each a thread, up to which a name that was not answered in time last gets another one."""
LOOKUPS_UNKNOWN_MAX: Final = 256
"""The same for names never looked up."""
LOOKUPS_MAX: Final = 512
"""The same for names that were answered in time last; some 50 MiB, and only when hundreds of zones die at once."""
LOOKUPS_REMEMBERED_MAX: Final = 4_096
"""Names remembered as prompt, and as failed."""
PULSE_AFTER_SECONDS: Final = 0.75
"""Who has waited for a database so long makes us ask whether it is there at all."""
PULSE_SECONDS: Final = 1.25
"""A database that says nothing for so long to a new connection is silent: time for one lost packet to be sent again."""
PULSE_LOOK_SECONDS: Final = 0.25
"""How often we look who waits, while anybody does."""
WITNESS_AGAIN_SECONDS_MAX: Final = 10.0
"""At the latest then a database is asked again whether it still works on a long statement; it costs a login."""
SOCKET_IDLE_SECONDS: Final = 2
"""The kernel asks the peer of an idle database connection for a sign of life after so long, then every second."""
SOCKET_PROBES_MAX: Final = 2
SOCKET_UNANSWERED_SECONDS: Final = 2.5
"""What was sent on a database connection is acknowledged by then, or the kernel ends the connection."""
CONNECTIONS_PER_SOURCE_MAX: Final = 16
EXPORT_CONNECTIONS_PER_SOURCE_MAX: Final = 4
"""A cap of their own, so that stalled exports never starve queries. JSON pages that are streamed count as exports."""
LOGIN_BOUND_SECONDS: Final = 10.0
"""After the server refused a login one more connection, so long until one more is tried: others may have closed theirs."""
CONNECTIONS_PER_SERVER_MAX: Final = 40
"""Connections of one process to one database server, for pages and cursors of all its sources: two processes leave other clients
some of the 100 that PostgreSQL allows by default."""
PROBE_LOGIN_SECONDS: Final = 0.1
"""Between two probes of one server that log in; sources with an idle connection are probed over it."""
CERTIFICATES_BYTES_MAX: Final = MIB
"""A file of root certificates; the bundles of operating systems have a quarter of it."""
CONNECTION_IDLE_SECONDS: Final = 300.0
CONNECTION_AGE_SECONDS_MAX: Final = 900.0
"""Then a connection is replaced when it is free: a name that stands for another server now is noticed under load too."""
CANCEL_SECONDS: Final = 2.0
"""Longest wait for the database to confirm a cancel before the connection is cut."""
BACKEND_GONE_SECONDS: Final = 120.0
"""Longest time that a database session which ignores a cancel keeps its place among a source's connections."""
DEADLINE_SLACK_SECONDS: Final = 1.0
"""An outcome arrives by deadline + this (I2), and the database ends the statement by then too (I7)."""
FETCH_BYTES_TARGET: Final = 64 * KIB
LIBRARY_READ_BYTES: Final = MIB
"""Read at a time of the libraries that are about to be loaded."""
FETCH_BYTES_MAX: Final = 64 * MIB
"""Rows fetched at once whose size was not foreseen: larger ones are `limit_exceeded`. One row may have as much."""
ARROW_BATCH_BYTES: Final = 256 * KIB
"""One record batch: small enough for the first rows to come at once, large enough that its own bytes do not count."""
PARQUET_GROUP_BYTES: Final = 4 * MIB
"""Rows held until they make one row group of a Parquet file."""
PLAN_DEPTH_MAX: Final = 4 * REQUEST_NESTING_MAX
"""Depth of a plan's tree: one level of `where` makes up to three."""
PLAN_NODES_MAX: Final = 4 * WHERE_NODES_MAX
"""Nodes of a plan's tree: one condition makes up to three."""
RELATIONS_MAX: Final = 32
"""Relations of one plan, at any depth: each is another table to read."""
RELATIONS_DEPTH_MAX: Final = 4
"""Relations below relations."""
MEASURES_MAX: Final = 32
"""Measures of one plan."""
RELATIONS_KNOWN_MAX: Final = 2_000
RELATIONS_KNOWN_BYTES_MAX: Final = MIB
"""Tables of one source of which is kept whether they are plain; further ones are looked up again."""
RELATION_KNOWN_SECONDS: Final = 60.0
"""Then a statement is prepared anew and its table judged again: the guard in it does not see new indexes and operators."""
COMPILED_PLANS_MAX: Final = 2_000
"""Compiled statements kept, per process."""
COMPILED_SHAPES_BYTES_MAX: Final = 2 * MIB
"""Encoded shapes of the compiled statements kept; what is made from one takes some 20 times its bytes."""

# --- access ---------------------------------------------------------------------------------------------------------------
FAILED_LOGINS_PER_MINUTE_MAX: Final = 60
"""Failures per address, or per /64 of IPv6; beyond it they are `rate_limited`. A good key never is."""
FAILED_LOGINS_BLOCKS_MAX: Final = 10_000
"""Addresses whose failures are counted at once, the latest ones: some 2 MiB."""
KEY_CHARACTERS_MAX: Final = 1_024
"""Hashed of what is sent as a key: more than any key has, so that a long header costs no more than a wrong key."""
PROXY_WARNING_REQUESTS: Final = 50
"""Requests in a row with forwarding headers from one address that is not trusted: then the log says so, once for each address."""
PROXY_WARNINGS_MAX: Final = 3
KEY_REQUESTS_PER_MINUTE_MAX: Final = 10_000_000
"""Highest `requestsPerMinute` that a key may be given."""
KEY_CONCURRENT_REQUESTS_MAX: Final = 10_000
"""Highest `concurrentRequests` that a key may be given."""
KEY_ORIGINS_MAX: Final = 32
"""Origins of web pages that one publishable key lists."""
ORIGIN_CHARACTERS_MAX: Final = 300
"""Length of one origin: a host has up to 253 characters, beside scheme and port."""
PREFLIGHT_SECONDS: Final = 600
"""How long a browser may keep the answer to a preflight. A key that is deleted opens nothing at once all the same."""
KEYS_COUNTED_MAX: Final = 10_000
"""Keys with bounds of their own whose requests are counted at once; of more, the idle ones start anew."""
CREDENTIAL_SEAL_SECONDS: Final = 300.0
"""Validity of a sealed credential from when it was sealed; it is opened at once on arrival."""
AUDIT_WRITE_SECONDS: Final = 1.0
"""Audit entries of sign-ins, refusals and runner sessions are written at most so often, all in one transaction."""
AUDIT_MERGE_SECONDS: Final = 60.0
"""Repetitions of an audit entry within this time are one row with a count."""
AUDIT_DIFFERENT_MAX: Final = 300
"""Different audit entries of refusals and strangers under way; beyond it they are counted together: some 100 bytes a second."""
AUDIT_DIFFERENT_KNOWN_MAX: Final = 20_000
"""The same with those of keys and runners that exist: all runners of a node may come back in one minute."""
AUDIT_DAYS_DEFAULT: Final = 400
"""Rows of the audit are kept for so many days, thirteen months, unless told otherwise."""
AUDIT_DAYS_MAX: Final = 36_500
KEY_USE_SECONDS: Final = 60.0
"""The last use of a key is written at most so often: one transaction for all keys, no work for each request."""
KEY_EXPIRY_SLACK_SECONDS: Final = 0.005
"""A timer that ends a key wakes so long after its expiry: a clock's step of a millisecond must not make it wake in vain."""
KEY_EXPIRY_LOOK_SECONDS: Final = 30.0
"""Longest sleep before the next expiry of a key: the wall clock may be set forward meanwhile."""
CONSOLE_SIGN_IN_SECONDS: Final = 12 * 3600
"""Then a sign-in to the Console ends, used or not."""
CONSOLE_IDLE_SECONDS: Final = 4 * 3600
"""A sign-in that nobody used for so long ends. What an open page fetches by itself is no use."""
CONSOLE_SIGN_INS_PER_KEY_MAX: Final = 100
"""One more ends the one that was used longest ago."""
CONSOLE_BEAT_SECONDS: Final = 2.0
"""Between two signs of life to an open page; it calls itself stale when it misses two."""
CONSOLE_PUSH_SECONDS: Final = 1.0
"""Least time between two renderings of one view: a busy fleet is pushed once a second."""
CONSOLE_STANDING_SECONDS: Final = 4.0
"""Longest time that a page shows numbers which change without an event, such as the jobs of a runner."""
CONSOLE_SLICE_SECONDS: Final = 0.001
"""Longest turn of the loop for a page's facts. It rests as long after each, so that queries pass."""
CONSOLE_VIEWS_MAX: Final = 64
"""Rendered views kept. Ten tabs on the same list are one view."""
CONSOLE_STREAMS_MAX: Final = 500
"""Open pages of one node; beyond it a page polls."""
CONSOLE_STREAMS_PER_KEY_MAX: Final = 100
"""Open pages that one key, which many people may share, signed in; it leaves room for those of others."""
CONSOLE_ROWS_MAX: Final = 40
"""Rows on one page of a list: the first view stays below 3,000 elements."""
CONSOLE_ROWS_KEPT_MAX: Final = 1_000
"""Rendered rows kept, some 5 KiB each: a change of one runner renders one row."""
CONSOLE_CHIPS_MAX: Final = 5
"""Sources shown in the row of a runner before it is opened."""
CONSOLE_CHIPS_OPEN_MAX: Final = 200
"""Sources shown in the row of a runner that is opened."""
CONSOLE_CHOICES_MAX: Final = 50
"""Names that the field for adding a source offers at once."""
CONSOLE_TRIAL_SECONDS: Final = 3.0
"""Longest connection test before a click on Assign switches."""
TOKEN_OVERLAP_SECONDS: Final = 24 * 3600
"""After a rotation the previous token of a runner is good for so long: time to bring the new one to every instance."""
TOKENS_PER_RUNNER_MAX: Final = 2
"""The present token and the one before; rotating twice ends the oldest at once, which is the way to cut off a leaked one."""

# --- control plane --------------------------------------------------------------------------------------------------------
ASSIGNMENT_FORCE_SECONDS: Final = 25.0
"""A changed set is in force on a connected runner by then even if the push was lost (R10)."""
FIELDS_PER_LENS_MAX: Final = 1_600
"""PostgreSQL's own limit for the columns of a table."""
CONFIG_BYTES_MAX: Final = 64 * KIB
"""Settings of one source; a sealed one must fit one part of an assignment set, in base64 twice over."""
LENS_ROWS_MAX: Final = 10_000_000_000
"""Highest `maxRows` that a lens may ask for."""
LENS_BYTES_MAX: Final = 4_096 * GIB
"""Highest `maxBytes` that a lens may ask for."""
AUDIT_DETAILS_BYTES_MAX: Final = 16 * KIB
"""Details of one audit entry; longer ones are left out and marked so, a push of thousands of objects for example."""
NAMES_SHOWN_MAX: Final = 5
"""Names listed in one message; the rest is counted."""
EVENT_SUBSCRIBERS_MAX: Final = 1_000
"""Watchers of events on one node; each may have the whole backlog queued, some 10 KiB."""
EVENT_SUBSCRIBERS_PER_ENVIRONMENT_MAX: Final = 100
EVENT_SUBSCRIBERS_PER_KEY_MAX: Final = 50
"""Half of an environment's: one key, a Console that many people have open or a script gone wild, leaves room for the others."""
EVENT_SUBSCRIBERS_RESERVED: Final = 4
"""Watchers that each environment has room for even when others have taken all the rest."""
EVENT_BACKLOG_MAX: Final = 1_000
TEST_TIMEOUT_SECONDS: Final = 15.0

# --- client ---------------------------------------------------------------------------------------------------------------
CLIENT_TIMEOUT_SECONDS: Final = 60.0
"""One call with all its repetitions, unless the caller says otherwise: twice what the server allows a query."""
CLIENT_CONNECT_SECONDS: Final = 5.0
CLIENT_ANSWER_SLACK_SECONDS: Final = 2.0
"""After its deadline an answer may take so long to arrive: the outcome comes by deadline + 1 s, and it travels."""
CLIENT_ATTEMPTS_MAX: Final = 100
"""Times that one read is sent. The caller's timeout ends it first: with the back-off a minute is some 20 times."""
CLIENT_SAFE_REPEATS_MAX: Final = 1
"""Repetitions of a read that failed although everything was there; a query that kills runners must not be sent for ever."""
CLIENT_BACKOFF_SECONDS_MIN: Final = 0.1
CLIENT_BACKOFF_SECONDS_MAX: Final = 5.0
CLIENT_ANSWER_BYTES_MAX: Final = 64 * MIB
"""One answer that the client reads as a whole; what the server holds for a page stays far below."""
CLIENT_LINE_BYTES_MAX: Final = 2 * ROW_BYTES_MAX
"""One line of NDJSON that the client waits for the end of."""
CLIENT_EXPORT_ROWS_PER_PAGE: Final = 1_000
"""Rows of a page when every page is asked for: a tenth of the largest, so that the first rows come soon."""
CLIENT_LOCATION_CHARACTERS_MAX: Final = 255
"""Host, and path, of a redirect's target that an error shows."""
CLIENT_KEEPALIVE_SECONDS: Final = 15
"""Silence on a connection after which the kernel asks whether the server's host is still there."""
