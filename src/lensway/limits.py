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
"""One request body: a query or a control-plane object. Larger bodies are `payload_too_large`."""
REQUEST_NESTING_MAX: Final = 16
"""Depth of `where`; deeper is refused before any recursion."""
WHERE_NODES_MAX: Final = 1_000
"""Comparisons in one `where`."""
PATTERN_CHARACTERS_MAX: Final = 500
"""Longest pattern of `$like`, `$ilike`, `$contains`, `$startsWith` and `$endsWith`. A database compares a pattern with one
value without checking for cancels, and the time grows with pattern times value."""
PATTERN_WILDCARDS_MAX: Final = 100
"""Wildcards `%` of one pattern: databases recurse once for each."""
PATTERNS_MAX: Final = 100
PATTERNS_CHARACTERS_MAX: Final = 1_000
"""Pattern conditions of one `where`, and their characters in total: databases test a row's conditions without checking for
cancels."""
PATTERN_NATIVE_BYTES_MAX: Final = 16 * KIB
"""On SQLite, Lensway's own function matches larger values, because SQLite's LIKE cannot be interrupted. With the patterns
above, one row costs SQLite at most some 0.1 s."""
PATTERN_STEPS_PER_CHECK: Final = 4_096
"""Characters of a value that Lensway's own matching reads between two checks of the deadline."""
IN_VALUES_MAX: Final = 10_000
"""Values in one `$in` or `$nin`."""
ORDER_TERMS_MAX: Final = 16
"""Terms of one `orderBy`, before the primary key: a cursor's condition nests once for each."""
TEXT_VALUE_BYTES_MAX: Final = 64 * KIB
"""One text or bytes value in a request."""
NUMBER_CHARACTERS_MAX: Final = 1_000
"""Digits of one number in a request, and ten times as many for its exponent's value: more than any column holds."""
NAME_CHARACTERS_MAX: Final = 63
"""Names of objects and fields; PostgreSQL's own limit for identifiers."""
SUGGESTION_NAMES_MAX: Final = 4_000
"""Names compared with an unknown name to suggest the intended one: about 2 ms."""
SUGGESTION_CANDIDATES_MAX: Final = 32
"""Names compared in full with an unknown name: those that share most of its beginning or end."""
ROWS_PER_PAGE_DEFAULT: Final = 100
ROWS_PER_PAGE_MAX: Final = 10_000
"""A larger `limit` is refused with 400, never lowered silently."""
OFFSET_MAX: Final = 10_000_000
PAGE_BYTES_MAX: Final = 8 * MIB
"""The server holds a JSON page up to this size until it is complete. It streams a larger one; over HTTP/1.0 it is
`limit_exceeded`."""
PAGE_BYTES_TOTAL_MAX: Final = 128 * MIB
"""All JSON pages that one node holds. Beyond this it streams pages; over HTTP/1.0 they are `overloaded`."""
TAKEN_AT_ONCE_BYTES_MAX: Final = 16 * KIB
"""The server counts a complete result up to this size as taken by its caller at once: it may buffer as much for any caller."""
CURSOR_BYTES_MAX: Final = 16 * KIB
"""A header or a trailer carries the cursor too. A page that would end at longer order values is `limit_exceeded`."""
KEY_FACTS_SECONDS: Final = 5.0
"""How long a bridge trusts the catalog's facts about a table's keys: queries share a look-up, and migrations show soon."""
KEY_LOOK_SECONDS: Final = 2.0
"""Total time that a connection test spends on searching views for rows that share a key; one view gets a quarter of it."""
FILE_KEY_FACTS_SECONDS: Final = 1.0
"""The same for a file: reading its catalog takes microseconds."""
QUERY_TIMEOUT_MS_DEFAULT: Final = 30_000
QUERY_TIMEOUT_MS_MAX: Final = 3_600_000
EXPORT_TIMEOUT_MS_DEFAULT: Final = 3_600_000
STALL_TIMEOUT_SECONDS: Final = 60.0
"""How long a caller may read no data before its request is cancelled."""
STALL_GRACE_SECONDS: Final = 1.0
"""Delay between cancelling a stalled job and dropping its connection, so that the record shows the real cause."""
HTTP_CONNECTIONS_MAX: Final = 4_096
"""Connections of callers; one more is `overloaded`. With the limit on unread data of each, this limits memory."""
BACKLOG: Final = 2_048
"""Connections that the kernel completes before a listener accepts them; the kernel's own limit may be lower. When thousands of
runners reconnect in a second, those that meet a full backlog retry after one and three seconds."""
ACCEPTS_PER_TURN_MAX: Final = 64
"""Connections that one listener takes from the kernel's backlog in one turn of the event loop, in less than a millisecond."""
BEGINNINGS_PER_TURN_MAX: Final = 8
"""Taken connections that begin in one turn, some 2 ms of work. Addresses take turns, so that a crowd delays no other address."""
ACCEPTED_PER_ADDRESS_MAX: Final = 8_192
"""Connections of one address (or /64 of IPv6) that wait to begin; further ones are closed. Twice what a listener holds,
because the address may be a proxy's."""
ACCEPT_PAUSE_SECONDS: Final = 0.5
"""Pause after a connection could not be accepted: the process or the system has no more files."""
HTTP_STRANGERS_MAX: Final = 3_072
"""Connections without a valid key so far. At the limit, the server drops the oldest one of the address with the most."""
HTTP_STRANGERS_PER_ADDRESS_MAX: Final = 1_024
"""The same for one address or /64 of IPv6: many people may share one."""
HTTP_PATIENCE_SECONDS: Final = 1.0
"""Time for the request of a connection without a valid key, before another one of the same crowded address may replace it."""
HTTP_HEAD_BYTES_MAX: Final = 32 * KIB
"""Request line and headers; larger is `payload_too_large`. nginx accepts the same size by default."""
HTTP_HEADERS_MAX: Final = 128
"""Headers of a request; more are `payload_too_large`. In memory a header of five bytes takes thirty times as much."""
HTTP_READ_BYTES_MAX: Final = 16 * KIB
"""Bytes read from a caller at once. One such piece of pipelined requests waits, and then reading pauses."""
HTTP_AHEAD_PER_TURN_MAX: Final = 8
"""Pipelined requests started in one turn of the event loop: about a millisecond for all callers that pipeline."""
HTTP_PIECES_PER_TURN_MAX: Final = 64
"""Pieces of pipelined data parsed in one turn; a caller may send only blank lines, and each is a piece."""
CALLER_LOOK_SECONDS: Final = 0.1
"""How often to poll for a disconnect while a pipelined request pauses reading."""
CALLER_IDLE_LOOK_SECONDS: Final = 1.0
"""The same while a disconnect would free only the connection, and no query."""
HSTS_SECONDS: Final = 31_536_000
"""One year: how long browsers use TLS only, after they have seen an answer over TLS."""
PATHS_REMEMBERED_MAX: Final = 1_000
"""Request paths whose routes are cached."""
PATHS_REMEMBERED_BYTES_MAX: Final = 256 * KIB
HTTP_REQUEST_SECONDS_MAX: Final = 30.0
"""Time for a caller to send its whole request; then its connection is dropped."""
HTTP_IDLE_SECONDS: Final = 75
"""How long an idle kept-alive connection stays open: longer than the 60 s of common load balancers and pools, so that they
close first. If the server closed first, a request on its way would fail at the caller."""
HTTP_UNWRITTEN_BYTES_MAX: Final = 64 * KIB
"""The server writes a page up to this size at once and no longer counts it as held, whether its caller reads or not."""
HTTP_WRITE_PAUSE_BYTES: Final = 16 * KIB
"""Bytes that an HTTP connection buffers for a caller that does not read, before the writer waits; one chunk comes on top. Its
pipelined requests wait until the caller has read most of them."""
HTTP_UNSENT_BYTES_MAX: Final = 128 * KIB
"""Bytes per connection that the kernel accepts and cannot send yet; the kernel's default is up to 4 MiB."""
COMPRESS_INLINE_BYTES_MAX: Final = 16 * KIB
"""A thread compresses larger pieces: this takes some tenths of a millisecond, in which the loop serves others."""
COMPRESS_BYTES_MIN: Final = 8 * KIB
"""Smaller pages are sent uncompressed: they fit into a few packets, and compressing costs more than it saves."""
EXPORT_ROWS_DEFAULT: Final = 10_000_000
EXPORT_BYTES_DEFAULT: Final = 16 * GIB
ROW_BYTES_DEFAULT: Final = 16 * MIB
"""One encoded row; a lens may lower or raise it up to ROW_BYTES_MAX."""
ROW_BYTES_MAX: Final = 64 * MIB
GIVE_WAY_FROM_BYTES: Final = 256 * KIB
"""A result is large once it has sent this much: from then on its rows give way to small results."""
RIGHT_OF_WAY_SECONDS: Final = 0.05
"""How long a small result has priority over large ones; after that it waits for its database, not for them."""
GIVE_WAY_SECONDS_MAX: Final = 0.02
"""Longest pause of a large result; after it, its rows flow for the same time."""
TRACE_STATE_CHARACTERS_MAX: Final = 512
"""Longest `tracestate` of a caller that is forwarded, the minimum that the W3C asks for; longer ones are left out."""
SPAN_TABLES_CHARACTERS_MAX: Final = 500
"""Length of the list of a plan's tables in a span."""
TRACE_FLUSH_SECONDS: Final = 2.0
"""Longest wait for sending the last spans when a process ends, even if the collector hangs."""
REQUEST_RING_ENTRIES: Final = 10_000
"""Finished requests that a node keeps for `GET /v1/requests`."""

# --- runner link ----------------------------------------------------------------------------------------------------------
DATA_FRAME_BYTES_MAX: Final = 64 * KIB
"""Payload of one data frame: small enough that control frames wait only briefly behind one."""
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
"""Control frames that a peer has left unread, at their largest; beyond it the session ends: `overloaded`. A whole set fits."""
ATTEMPTS_OPEN_MAX: Final = 4_096
"""Attempts that one session may have open, answered or not. A heartbeat names at most as many."""
FRAMES_AT_ONCE_MAX: Final = 32
"""Frames of one peer handled in one turn of the loop: about 1 ms. The next ones wait for the other peers' turns."""
FRAMES_PER_SECOND: Final = 500.0
"""Unsolicited frames that a peer may send: 1 % of the loop. An honest peer sends about one a second."""
FRAMES_PER_ATTEMPT_SECOND: Final = 50.0
"""Additional frames a second for each open attempt: an export of a slow database sends its rows every 25 ms."""
FRAMES_PER_OFFER: Final = 8
"""Additional frames for each offer: its acceptance, its end and some rows."""
FRAMES_BURST: Final = 2_000
"""Frames that a peer may send at once. Beyond its allowance, reading from it pauses."""
FRAME_FREE_BYTES: Final = 4 * KIB
"""Each piece of a message of this size pays for one frame: only credit limits rows in bulk."""
FLOOD_SECONDS_MAX: Final = 4.0
"""A peer that exceeds its allowance for this long without a break is disconnected: `overloaded`."""
PAUSE_SECONDS_MAX: Final = 0.25
"""How often to poll a peer in debt: its link may have ended meanwhile."""
LINK_WAITING_BYTES_MAX: Final = MIB
"""Messages of one runner that wait for their reader; more stay in the socket."""
LINK_FRAMES_AT_ONCE_MAX: Final = 64
"""WebSocket frames parsed in one turn of the loop: about 1 ms, even if each is a ping that needs an answer."""
LINK_CONTROLS_PER_SECOND: Final = 500.0
"""Pings, pongs and fragments that a peer may send: 1 % of the loop. Rows in bulk pay for the pings that measure them."""
LINK_CONTROLS_BURST: Final = 500
SOURCE_STATES_MAX: Final = 1_000
"""Sources that one heartbeat or confirmation reports on; more travel in further reports. Handling them takes about 1 ms."""
REPORTS_PER_SECOND: Final = 4.0
"""Reports about sources and sets that take effect at once. Later ones are merged and take effect with the next heartbeat."""
REPORTS_BURST: Final = 32
PUSHES_PER_SECOND: Final = 0.5
"""Repeated pushes of a set to a runner that reports another one; each costs the loop a moment for each source."""
PUSHES_BURST: Final = 8
SEALED_REUSE_SECONDS: Final = 60.0
"""How long settings sealed for an instance are sent again instead of being sealed anew: 0.1 ms a source."""
SESSION_EVENTS_PER_SECOND: Final = 10.0
"""Events that one session causes. Beyond the burst, fast changes are sent later, with their latest state."""
SESSION_EVENTS_BURST: Final = 50
"""Each event goes to up to EVENT_SUBSCRIBERS_MAX watchers, so that this many hold the loop for some 10 ms."""
SESSION_EVENTS_LATE_SECONDS: Final = 0.25
"""Pause between two checks for delayed events."""
END_MARK_BYTES_MAX: Final = 64 * KIB
"""The encoded end mark of a result. It holds the key of the last row, from which a cursor is made."""
FAILURE_BYTES_MAX: Final = 64 * KIB
"""The encoded failure that a runner reports: message, hint and details at their largest."""
ROW_CHECKED_BYTES_MAX: Final = MIB
"""Longest line of a runner's NDJSON stream that is checked for structure: its bytes are buffered until its end arrives."""
INSTANCE_CHARACTERS_MAX: Final = 40
"""The id that a runner's process gives itself. Every attempt of every stored request holds it."""
NOTICES_MAX: Final = 8
"""Classes of trouble that one heartbeat of a runner names."""
RUNNER_TEXT_CHARACTERS_MAX: Final = 200
"""Short texts of a runner that people see: causes, versions, host names. Longer ones are cut."""
TEST_REPORT_BYTES_MAX: Final = 256 * KIB
"""The document of a connection test. The part that its event stores is cut to the next two bounds."""
TEST_WARNINGS_MAX: Final = 8
"""Warnings of one connection test that are shown."""
RUNNER_HINT_CHARACTERS_MAX: Final = 2_000
"""A hint of a runner that people see; longer ones are cut."""
TABLES_BYTES_MAX: Final = 4 * MIB
"""The document of an introspection: some 40,000 tables. Decoding it holds the loop for about 20 ms."""
SCAFFOLD_TABLES_MAX: Final = 500
"""Tables that one scaffold describes, with a job for each: about 10 MiB of documents at once."""
SCAFFOLD_JOBS_MAX: Final = 4
"""Concurrent jobs of one scaffold: they leave connections of the source to queries."""
WELCOME_INTERVAL_MS_MAX: Final = 60_000
"""Longest heartbeat interval that a runner accepts from a gateway; the fence may be ten times as long."""
TOLD_SECONDS_MAX: Final = 300.0
"""Longest wait before dialling again that a runner accepts from a gateway, so that no gateway can send it away for good."""
SOURCES_PER_RUNNER_MAX: Final = 20_000
"""Sources of one assignment set that a runner accepts. Larger sets end the session."""
ATTEMPTS_REMEMBERED_MAX: Final = 4_096
"""Latest jobs whose highest attempt a runner stores; the fence against late offers."""
PLAN_BYTES_MAX: Final = 192 * KIB
"""An encoded plan; one offer carries it."""
CREDIT_WINDOW_BYTES: Final = 512 * KIB
"""Bytes per job that an executor may have sent before the caller takes them."""
CREDIT_GRANT_BYTES_MIN: Final = 128 * KIB
"""Smaller grants are collected: one credit frame for several data frames."""
PACE_WINDOW_BYTES_FIRST: Final = 16 * KIB
"""Rows in transit on a link of unknown speed: seconds on the slowest useful link."""
PACE_WINDOW_BYTES_MIN: Final = 8 * KIB
PACE_WINDOW_BYTES_MAX: Final = 4 * MIB
PACE_PROMPT_SECONDS: Final = 0.04
"""Rows that arrive within this time, beyond the round trip, delay no other frame: the window grows, and doubles within half of
it. After three times it, the window halves. A query of one row therefore waits for some 80 ms of an export's rows on a slow
link, and so does a heartbeat."""
HOLD_BACK_BYTES: Final = 256 * KIB
"""Rows of a stream that are held back, so that losing a runner early costs the caller nothing."""
HOLD_BACK_SECONDS: Final = 0.050
NODE_CREDIT_BYTES_MAX: Final = 256 * MIB
"""Sum of all windows of one node; beyond it `overloaded`."""
HANDSHAKE_TIMEOUT_SECONDS: Final = 5.0
"""From the TCP connection to a complete `hello`."""
CERTIFICATE_LOOK_SECONDS: Final = 2.0
"""How often the server looks whether the files of its certificate are others now."""
LOOK_SECONDS: Final = 2.0
"""For each step of the second look at a port whose dial failed. Only the name of the cause waits for it."""
LOOK_AGAIN_SECONDS: Final = 30.0
"""Between two second looks of one runner: a thousand runners that dial a server in trouble must not dial it twice each."""
HANDSHAKES_PENDING_MAX: Final = 512
"""Connections to the gateway without a valid token, including TLS handshakes. At the limit, the gateway drops the oldest one of
the address with the most. Thousands of runners that reconnect at once wait in the kernel's backlog."""
HANDSHAKE_PATIENCE_SECONDS: Final = 2.5
"""Time that such a connection has before another one from the same crowded address may replace it."""
LINKS_SILENT_PER_RUNNER_MAX: Final = 32
"""Links of one runner without a `hello`: as many as it may have sessions, so that all its instances can come back at once."""
REFUSALS_FIRST_SECONDS: Final = 1.0
REFUSALS_LOG_SECONDS: Final = 60.0
"""Each listener logs its refused connections in one line, with a count, per this interval."""
CLOSE_TIMEOUT_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 0.5
"""Longest time for the last message and the close of a link, then it is cut: a revoked runner is gone within a second."""
LINK_UNANSWERED_SECONDS: Final = 25.0
"""Time for a runner to acknowledge sent data; then the kernel ends the connection. Heartbeats notice earlier."""
SESSIONS_MAX: Final = 10_000
"""Connections of runners on one node; one more is refused before its upgrade."""
SESSIONS_PER_RUNNER_MAX: Final = 32
"""Instances of one runner; the newest is refused, so that two never take turns to evict each other."""

# --- liveness -------------------------------------------------------------------------------------------------------------
HEARTBEAT_SECONDS: Final = 2.0
HEARTBEAT_GRID_SECONDS: Final = 0.02
"""Heartbeats are due, and silence is checked, at multiples of this: many sessions share a turn of the loop, because a turn
costs more than a heartbeat. With 5,000 sessions such a turn takes at most 2 ms."""
FRESH_HEARTBEATS: Final = 2.5
"""An answer to a heartbeat older than this many intervals is no sign of life: a network may have delayed it."""
SUSPECT_SECONDS: Final = 5.0
DEAD_SECONDS: Final = 10.0
RUNNER_FENCE_SECONDS: Final = 8.0
"""Counted from *sending* its last acknowledged heartbeat: ends before the gateway treats the session as dead."""
FLEET_LARGE_SESSIONS: Final = 2_000
"""Sessions on one node from which the slow timings apply: heartbeats cost about 13 % of a core for 2,000 each second."""
HEARTBEAT_LARGE_SECONDS: Final = 5.0
SUSPECT_LARGE_SECONDS: Final = 12.0
DEAD_LARGE_SECONDS: Final = 25.0
RUNNER_FENCE_LARGE_SECONDS: Final = 20.0
OFFER_TIMEOUT_SECONDS: Final = 0.5
"""An offer unanswered for this long goes to another runner and makes the session suspect: a link needs a shorter round trip."""
ACCEPT_DELAY_SECONDS: Final = 0.002
"""How long an accept waits for the end of its query, to share its message; far below the offer's time-out."""
LOOP_STALL_SECONDS: Final = 0.5
"""A runner whose loop stood still for longer discards the offers it has not answered."""

# --- dispatch -------------------------------------------------------------------------------------------------------------
ATTEMPTS_MAX: Final = 3
RUNNERS_LOST_MAX: Final = 2
"""Two runners lost while executing one job: poison."""
OFFERS_PER_JOB_MAX: Final = 32
"""Refusals and unanswered offers are not attempts, but they are bounded too."""
REVIVAL_SECONDS_MAX: Final = 2.0
"""Longest wait for a session that may reconnect before `no_runners_online`; also min(…, remaining / 4)."""
LAST_SESSION_GRACE_SECONDS: Final = 2.0
STARTUP_GRACE_SECONDS: Final = 5.0
JOBS_PER_SESSION_DEFAULT: Final = 64
"""Default capacity that a runner declares."""
JOBS_INLINE_MAX: Final = 256
JOBS_PER_PAIR_MAX: Final = 32
"""Queries of one source given to one place: twice its connections, so that a query always waits at the pool and no connection
idles."""
BUSY_BACKOFF_SECONDS: Final = 0.25
"""How long to skip a place for a source after it refused as busy."""
NOT_ASSIGNED_MAX: Final = 2
"""A job skips a session that still says `not_assigned` after this many pushes of its set."""
REPORTS_MISSED_MAX: Final = 2
"""Heartbeats in a row that may omit an attempt that the service expects; then the attempt is lost."""
NODE_STALL_SECONDS: Final = 0.1
"""A timer of this node that is this late shows that the node itself stood still; it then blames no peer for silence."""
NODE_STALL_GRACE_SECONDS: Final = 0.25
"""Time after a stall in which the node reads what peers sent meanwhile."""
RUNNER_RETURN_SECONDS: Final = 120.0
"""A runner that reconnects within this time after the server's start is shown as connected since before the restart."""
RUNNER_HISTORY_ENTRIES_MAX: Final = 10_000
"""Runners whose last session is stored after it was lost."""
SIGHTING_SOURCES_MAX: Final = 100
"""Sources of an instance that are not ready and whose moments outlive a restart of the server: each sighting stays small."""
SIGHTINGS_PER_WRITE_MAX: Final = 200
"""Runners whose last sighting is written in one transaction: thousands that reconnect at once cause few writes, and a change of
the catalog waits behind one of them at most."""
QUEUE_JOBS_MAX: Final = 1_000
"""Jobs that wait for a busy place or for a runner to reconnect; one more is `overloaded`."""
QUEUE_WAIT_SECONDS_MAX: Final = 10.0
"""Longest wait for a busy place while a queue is young: a burst."""
QUEUE_STANDING_SECONDS: Final = 10.0
"""A queue that has not been empty for this long is no burst: demand exceeds capacity."""
QUEUE_WAIT_STANDING_SECONDS: Final = 4.0
"""Longest wait in such a queue: at half load it empties 2 × this after the excess ends, so latency is normal within 10 s."""
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
"""Back-off resets only after a session has lasted this long."""
RECONNECT_EAGER_TRIES: Final = 6
"""Number of first waits that are at most four times the least; each later wait may be twice the one before."""
RECONNECT_REFUSED_SECONDS: Final = 0.5
"""Longest wait after a dial to a port without a listener; far below `REVIVAL_SECONDS_MAX`, the wait of queries after a
restart."""
RECONNECT_REFUSALS_MAX: Final = 120
"""After this many (a minute), waits grow as after any failure."""
RECONNECT_TOLD_SECONDS_MAX: Final = 60.0
"""Longest wait that a peer may ask for: `Retry-After` of a proxy or a broken gateway must not keep a runner away for ever."""
REFUSED_AGAIN_SECONDS: Final = 30.0
"""A refused runner that has its token in a file dials again after this time, or when the file changes."""
TOKEN_LOOK_SECONDS: Final = 1.0
"""How often a refused runner reads its token file."""
GATEWAY_ADDRESSES_MAX: Final = 8
"""Addresses of the gateway's name that one dial tries, each for half the handshake's time."""
RUNNER_STALL_GRACE_SECONDS: Final = 0.1
"""Time after a stall in which the runner reads what waited in the socket."""
RUNNER_WATCH_SECONDS: Final = 0.1
FLUSH_SECONDS: Final = 0.025
"""Longest time that rows of a stream wait for a frame to fill up."""
PROBE_SECONDS: Final = 2.0
"""How often a runner probes each source whose state no query has shown."""
PROBES_AT_ONCE_MAX: Final = 32
"""Sources that one runner probes at the same moment; with very many assigned sources, the others are probed later."""
DRAIN_SECONDS: Final = 30.0
"""A draining runner hands back the jobs that have not finished by then."""

COME_BACK_MS: Final = 1_000
"""A stopping server tells its runners to dial again after about this time; a restart takes about as long."""

JOURNAL_FILE_BYTES: Final = 16 * MIB
"""Size at which the file of jobs is rotated: some 40,000 jobs."""
JOURNAL_FILES_KEPT: Final = 7
"""Rotated files of jobs that stay beside the present one: 128 MiB in all."""
JOURNAL_LINES_WAITING_MAX: Final = 10_000
"""Lines of jobs that wait for a slow disk; further ones are lost and counted. About 5 MB."""
JOURNAL_CLOSE_SECONDS: Final = 2.0
"""Longest wait for the last lines of jobs when a runner ends, even if the disk hangs."""
HEALTH_REQUESTS_AT_ONCE_MAX: Final = 32
"""Connections that a runner's health listener serves at once; it closes further ones."""

# --- databases ------------------------------------------------------------------------------------------------------------
SOURCE_HOSTS_MAX: Final = 16
"""Hosts that one source lists; each silent host costs a new connection its timeout."""
CONNECT_TIMEOUT_SECONDS_MAX: Final = 60
"""Highest `connect_timeout` of a source."""
CONNECT_TIMEOUT_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 2.0
"""A name that does not resolve in this time counts as unreachable: another runner may reach the database meanwhile."""
LOOKUP_FAILED_SECONDS: Final = 0.5
"""How long a name that did not resolve fails at once: many concurrent look-ups become one."""
LOOKUPS_PER_NAME_MAX: Final = 2
"""Concurrent look-ups of one name; the second one starts when the first is late, because its packets may have been lost."""
LOOKUPS_LATE_MAX: Final = 64
"""Concurrent look-ups, each in a thread, up to which a name whose last answer was late gets another one."""
LOOKUPS_UNKNOWN_MAX: Final = 256
"""The same for names that were never looked up."""
LOOKUPS_MAX: Final = 512
"""The same for names whose last answer was in time; some 50 MiB, and only when hundreds of zones fail at once."""
LOOKUPS_REMEMBERED_MAX: Final = 4_096
"""Names stored as prompt, and as failed."""
PULSE_AFTER_SECONDS: Final = 0.75
"""How long a query waits for a database before Lensway checks whether the database answers at all."""
PULSE_SECONDS: Final = 1.25
"""A database that is silent on a new connection for this long counts as silent: time to resend one lost packet."""
PULSE_LOOK_SECONDS: Final = 0.25
"""How often to check for waiting queries, while there are any."""
WITNESS_AGAIN_SECONDS_MAX: Final = 10.0
"""Longest time between two checks that a database still works on a long statement; a check costs a login."""
SOCKET_IDLE_SECONDS: Final = 2
"""Idle time of a database connection after which the kernel probes the peer, then every second."""
SOCKET_PROBES_MAX: Final = 2
SOCKET_UNANSWERED_SECONDS: Final = 2.5
"""Time for the peer to acknowledge data sent on a database connection; then the kernel ends the connection."""
CONNECTIONS_PER_SOURCE_MAX: Final = 16
EXPORT_CONNECTIONS_PER_SOURCE_MAX: Final = 4
"""A separate limit, so that stalled exports never starve queries. Streamed JSON pages count as exports."""
LOGIN_BOUND_SECONDS: Final = 10.0
"""After the server refused a login one more connection, time until the next try: other clients may have closed theirs."""
LOGIN_SHORT_SECONDS: Final = 60.0
"""For this time after such a refusal, the status of the source says that its login lacks connections."""
CONNECTIONS_PER_SERVER_MAX: Final = 40
"""Connections of one process to one database server, for pages and cursors of all its sources: two processes leave other clients
some of the 100 that PostgreSQL allows by default."""
PROBE_LOGIN_SECONDS: Final = 0.1
"""Between two probes of one server that log in; sources with an idle connection are probed over it."""
CERTIFICATES_BYTES_MAX: Final = MIB
"""A file of root certificates; the bundles of operating systems are a quarter of this size."""
CONNECTION_IDLE_SECONDS: Final = 300.0
CONNECTION_AGE_SECONDS_MAX: Final = 900.0
"""A connection of this age is replaced when it is free, so that a new address of the host name is noticed under load too."""
CANCEL_SECONDS: Final = 2.0
"""Longest wait for the database to confirm a cancel before the connection is cut."""
BACKEND_GONE_SECONDS: Final = 120.0
"""Longest time that a database session that ignores a cancel keeps its place among a source's connections."""
DEADLINE_SLACK_SECONDS: Final = 1.0
"""An outcome arrives by deadline + this (I2), and the database ends the statement by then too (I7)."""
FETCH_BYTES_TARGET: Final = 64 * KIB
LIBRARY_READ_BYTES: Final = MIB
"""Bytes read at a time from the libraries that are about to be loaded."""
FETCH_BYTES_MAX: Final = 64 * MIB
"""Rows fetched at once whose size could not be estimated: larger ones are `limit_exceeded`. One row may be as large."""
ARROW_BATCH_BYTES: Final = 256 * KIB
"""One record batch: small enough for the first rows to come at once, large enough to make its own bytes negligible."""
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
"""Tables of one source that are cached as plain or not; further ones are looked up again."""
RELATION_KNOWN_SECONDS: Final = 60.0
"""After this time a statement is prepared again and its table checked again: the guard in it does not notice new indexes and
operators."""
COMPILED_PLANS_MAX: Final = 2_000
"""Compiled statements kept, per process."""
COMPILED_SHAPES_BYTES_MAX: Final = 2 * MIB
"""Encoded shapes of the cached compiled statements; the result of compiling takes some 20 times their bytes."""

# --- access ---------------------------------------------------------------------------------------------------------------
FAILED_LOGINS_PER_MINUTE_MAX: Final = 60
"""Failures per address, or per /64 of IPv6; further ones are `rate_limited`. A valid key is never limited."""
FAILED_LOGINS_BLOCKS_MAX: Final = 10_000
"""Latest addresses whose failures are counted: some 2 MiB."""
KEY_CHARACTERS_MAX: Final = 1_024
"""Characters of a sent key that are hashed: more than any key has, so that a long header costs no more than a wrong key."""
PROXY_WARNING_REQUESTS: Final = 50
"""Requests in a row with forwarding headers from one untrusted address, after which the log warns, once for each address."""
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
"""How long a browser may cache the answer to a preflight. A deleted key is invalid at once all the same."""
KEYS_COUNTED_MAX: Final = 10_000
"""Keys with limits of their own whose requests are counted at once; beyond this, idle keys start anew."""
CREDENTIAL_SEAL_SECONDS: Final = 300.0
"""Validity of a sealed credential from the moment of sealing; the runner opens it on arrival."""
AUDIT_WRITE_SECONDS: Final = 1.0
"""Least time between two writes of audit entries of sign-ins, refusals and runner sessions; one transaction holds them all."""
AUDIT_MERGE_SECONDS: Final = 60.0
"""Repetitions of an audit entry within this time become one row with a count."""
AUDIT_DIFFERENT_MAX: Final = 300
"""Different pending audit entries of refusals and strangers; beyond this they are counted together: some 100 bytes a second."""
AUDIT_DIFFERENT_KNOWN_MAX: Final = 20_000
"""The same for existing keys and runners: all runners of a node may reconnect within one minute."""
AUDIT_DAYS_DEFAULT: Final = 400
"""Days that the audit keeps its rows by default: thirteen months."""
AUDIT_DAYS_MAX: Final = 36_500
KEY_USE_SECONDS: Final = 60.0
"""Least time between two writes of the last use of keys: one transaction for all keys, no work for each request."""
KEY_EXPIRY_SLACK_SECONDS: Final = 0.005
"""Delay of the timer that ends a key, after its expiry: a clock step of a millisecond must not wake it too early."""
KEY_EXPIRY_LOOK_SECONDS: Final = 30.0
"""Longest sleep before the next expiry of a key: the wall clock may be set forward meanwhile."""
CONSOLE_SIGN_IN_SECONDS: Final = 12 * 3600
"""Lifetime of a sign-in to the Console, used or not."""
CONSOLE_IDLE_SECONDS: Final = 4 * 3600
"""An unused sign-in ends after this time. Automatic requests of an open page do not count as use."""
CONSOLE_SIGN_INS_PER_KEY_MAX: Final = 100
"""One more ends the least recently used one."""
CONSOLE_BEAT_SECONDS: Final = 2.0
"""Time between two beats to an open page; the page turns stale when it misses two."""
CONSOLE_PUSH_SECONDS: Final = 1.0
"""Least time between two renderings of one view: a busy fleet is pushed once a second."""
CONSOLE_STANDING_SECONDS: Final = 4.0
"""Longest time that a page shows numbers that change without an event, such as the jobs of a runner."""
CONSOLE_SLICE_SECONDS: Final = 0.001
"""Longest turn of the loop for collecting a page's facts. A pause of the same length follows, so that queries pass."""
CONSOLE_VIEWS_MAX: Final = 64
"""Rendered views that are cached. Ten tabs on the same list are one view."""
CONSOLE_STREAMS_MAX: Final = 500
"""Open pages of one node; beyond it a page polls."""
CONSOLE_STREAMS_PER_KEY_MAX: Final = 100
"""Open pages of sign-ins with one key, which many people may share; this leaves room for other keys."""
CONSOLE_ROWS_MAX: Final = 40
"""Rows on one page of a list: the first view stays below 3,000 elements."""
CONSOLE_ROWS_KEPT_MAX: Final = 1_000
"""Rendered rows that are cached, some 5 KiB each: a change of one runner renders one row."""
CONSOLE_SEARCH_ROWS_MAX: Final = 10_000
"""Audit rows that one page of a filtered list reads; its last line offers to search on."""
CONSOLE_LENS_ROWS_MAX: Final = 50
"""Rows of a lens that a page shows at once."""
CONSOLE_LENS_COLUMNS_MAX: Final = 40
"""Fields of a lens that a page asks for unless it is told which."""
CONSOLE_CELL_CHARACTERS_MAX: Final = 200
"""Characters of one value in a table of rows; longer ones are cut, with their length."""
CONSOLE_CHIPS_MAX: Final = 5
"""Sources shown in the row of a runner before it is opened."""
CONSOLE_CHIPS_OPEN_MAX: Final = 200
"""Sources shown in the row of a runner that is opened."""
CONSOLE_MATRIX_MAX: Final = 30
"""Rows and columns on one page of the matrix: with every cell filled it stays below 3,000 elements."""
CONSOLE_EVENTS_MAX: Final = 20
"""Events that the page of a runner or a source, and the overview, show."""
CONSOLE_PROBLEMS_MAX: Final = 100
"""Lines of the overview; the worst come first."""
CONSOLE_REMEDY_SOURCES_MAX: Final = 20
"""Sources that one click assigns: each of them is tested from the runner first."""
CONSOLE_CHOICES_MAX: Final = 50
"""Names that the field for adding a source offers at once."""
CONSOLE_TRIAL_SECONDS: Final = 3.0
"""Longest connection test after a click on Assign, before the assignment changes."""
TOKEN_OVERLAP_SECONDS: Final = 24 * 3600
"""How long the previous token of a runner stays valid after a rotation: time to bring the new one to every instance."""
TOKENS_PER_RUNNER_MAX: Final = 2
"""The present token and the previous one; rotating twice ends the oldest at once, which cuts off a leaked token."""

# --- control plane --------------------------------------------------------------------------------------------------------
ASSIGNMENT_FORCE_SECONDS: Final = 25.0
"""A changed set is in force on a connected runner within this time, even if the push was lost (R10)."""
FIELDS_PER_LENS_MAX: Final = 1_600
"""PostgreSQL's own limit for the columns of a table."""
CONFIG_BYTES_MAX: Final = 64 * KIB
"""Settings of one source; a sealed one must fit one part of an assignment set, base64-encoded twice."""
LENS_ROWS_MAX: Final = 10_000_000_000
"""Highest `maxRows` that a lens may ask for."""
LENS_BYTES_MAX: Final = 4_096 * GIB
"""Highest `maxBytes` that a lens may ask for."""
AUDIT_DETAILS_BYTES_MAX: Final = 16 * KIB
"""Details of one audit entry; longer ones, such as a push of thousands of objects, are left out and marked."""
NAMES_SHOWN_MAX: Final = 5
"""Names listed in one message; the rest is counted."""
EVENT_SUBSCRIBERS_MAX: Final = 1_000
"""Watchers of events on one node; each may have the whole backlog queued, some 10 KiB."""
EVENT_SUBSCRIBERS_PER_ENVIRONMENT_MAX: Final = 100
EVENT_SUBSCRIBERS_PER_KEY_MAX: Final = 50
"""Half of an environment's: one key, such as that of a shared Console or a runaway script, leaves room for others."""
EVENT_SUBSCRIBERS_RESERVED: Final = 4
"""Watchers reserved for each environment, even when others have taken all the rest."""
EVENT_BACKLOG_MAX: Final = 1_000
TEST_TIMEOUT_SECONDS: Final = 15.0

# --- client ---------------------------------------------------------------------------------------------------------------
CLIENT_TIMEOUT_SECONDS: Final = 60.0
"""Default timeout of one call with all its repetitions: twice what the server allows a query."""
REQUESTS_LISTED_MAX: Final = 1_000
"""How many requests, or rows of the audit, one answer lists."""
COMPLETION_SECONDS: Final = 1.0
"""How long the shell's completion waits for names: longer than that, a Tab seems to hang."""
CLIENT_CONNECT_SECONDS: Final = 5.0
CLIENT_ANSWER_SLACK_SECONDS: Final = 2.0
"""How long after its deadline an answer may arrive: the outcome comes by deadline + 1 s, plus its time on the network."""
CLIENT_ATTEMPTS_MAX: Final = 100
"""How often one read is sent at most. The caller's timeout ends it first: with back-off, a minute is some 20 attempts."""
CLIENT_SAFE_REPEATS_MAX: Final = 1
"""Repetitions of a read that failed on a working service; a query that kills runners must not be sent for ever."""
CLIENT_BACKOFF_SECONDS_MIN: Final = 0.1
CLIENT_BACKOFF_SECONDS_MAX: Final = 5.0
CLIENT_ANSWER_BYTES_MAX: Final = 64 * MIB
"""One answer that the client reads as a whole; a page that the server holds stays far below."""
CLIENT_LINE_BYTES_MAX: Final = 2 * ROW_BYTES_MAX
"""One line of NDJSON that the client buffers until its end."""
CLIENT_EXPORT_ROWS_PER_PAGE: Final = 1_000
"""Rows of a page when the caller asks for every page: a tenth of the largest, so that the first rows come soon."""
CLIENT_LOCATION_CHARACTERS_MAX: Final = 255
"""Host, and path, of a redirect's target that an error shows."""
CLIENT_KEEPALIVE_SECONDS: Final = 15
"""Silence on a connection after which the kernel probes the server's host."""
