"""Hostile parties that have a key, a network or a database: `python -m lensway.testing.hostile_parties KIND SECONDS SEED`.

A caller with a publishable key beyond its limits, the admin of another environment, a balancer that accepts and closes, and
databases that misbehave behind sources of that environment, one of them under a name that no name server answers for. Each is a
process of its own, so that its work does not delay the honest callers whose answers a run measures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import httpx2

from lensway.testing.deployment import Deployment, clean_environment

SETTINGS_VARIABLE: Final = "LENSWAY_TEST_PARTY"
KINDS: Final = ("publishable", "foreign", "networks", "databases")
ENVIRONMENT: Final = "elsewhere"
_THREADS: Final = 4
_UNREAD_MAX: Final = 8
_STREAMS_MAX: Final = 60
"""More event streams than a key may have."""
_FIELDS: Final = {"id": {"type": "integer", "primaryKey": True}, "text": {"type": "text"}}
_SOURCES: Final = ("silent", "garbled", "closing", "unresolved")


@dataclasses.dataclass(frozen=True, slots=True)
class Parties:
    """What the run has made for them."""

    settings: Mapping[str, Any]
    balancer_port: int


def prepare(deployment: Deployment, lens: str) -> Parties:
    """The keys, environment, sources and ports of the parties. ``lens`` is one that publishable keys may ask."""
    admin = deployment.client()
    assert admin.post("/v1/environments", json={"name": ENVIRONMENT}).status_code == 201
    there = deployment.client(environment=ENVIRONMENT)
    limits = {"requestsPerMinute": 600, "concurrentRequests": 4}
    page = admin.post("/v1/keys", json={"kind": "pk", "name": "page", "limits": limits}).json()["key"]
    foreign = there.post("/v1/keys", json={"kind": "ak", "name": "foreign", "role": "admin"}).json()["key"]
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [each.getsockname()[1] for each in listeners]
    for name, port in zip(_SOURCES, (*ports[:3], ports[0]), strict=True):
        host = "database.dead" if name == "unresolved" else "127.0.0.1"
        config = {"url": f"postgresql://reader:secret@{host}:{port}/db", "connect_timeout": 2}
        made = there.post("/v1/sources", json={"name": name, "bridge": "postgres", "config": config})
        assert made.status_code == 201, made.text
        lens_made = there.put(f"/v1/lenses/{name}", json={"source": name, "table": "rows", "fields": _FIELDS})
        assert lens_made.status_code == 200, lens_made.text
        # The drivers of pages and of exports are loaded when they are used first.
        for path in (f"/v1/query/{name}", f"/v1/query/{name}/export"):
            there.post(path, json={"timeoutMs": 500})
    settings = {"url": deployment.url, "page": page, "foreign": foreign, "lens": lens, "ports": ports}
    return Parties(settings, ports[3])


@contextlib.contextmanager
def playing(parties: Parties, seconds: float, seed: int, told: Counter[str]) -> Iterator[None]:
    """All of them beside the block, for so long; ``told`` counts what became of what they did."""
    environment = clean_environment() | {SETTINGS_VARIABLE: json.dumps(parties.settings)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lensway.testing.hostile_parties", kind, str(seconds), str(seed)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        for kind in KINDS
    ]
    try:
        yield
        for kind, process in zip(KINDS, processes, strict=True):
            output, _ = process.communicate(timeout=seconds + 60)
            assert process.returncode == 0, f"the party '{kind}' has a defect of its own"
            told.update({f"{kind}: {what}": count for what, count in json.loads(output).items()})
    finally:
        for process in processes:
            process.kill()
            process.communicate()


class _Party:
    """Does one thing after another, in several threads, until the time is over."""

    def __init__(self, settings: Mapping[str, Any], seconds: float, seed: int) -> None:
        self.settings = settings
        self.told: Counter[str] = Counter()
        self._ends = time.monotonic() + seconds
        self._seed = seed

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._ends

    def run(self, act: Callable[[random.Random, httpx2.Client], str], key: str, *, pause: float) -> None:
        threads = [
            threading.Thread(target=self._repeat, args=(act, key, number, pause), daemon=True)
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self._ends - time.monotonic()) + 30)

    def _repeat(self, act: Callable[[random.Random, httpx2.Client], str], key: str, number: int, pause: float) -> None:
        dice = random.Random(self._seed * 100 + number)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=self.settings["url"], headers=headers, timeout=10, trust_env=False) as client:
            while not self.is_over:
                try:
                    what = act(dice, client)
                except httpx2.HTTPError as error:
                    what = f"{type(error).__name__} {error.request.method} {error.request.url.path[:30]}"
                self.told[what] += 1
                time.sleep(dice.random() * pause)


def _publishable(party: _Party) -> None:
    """More than its limits allow: names that do not exist, heavy patterns, exports without a reader, bodies of any form."""
    lens, unread = party.settings["lens"], []
    bodies: list[object] = [
        {"limit": 10_000},
        {"where": {"text": {"$contains": "row " * 100}}},
        {"where": {"$or": [{"text": {"$like": "%r%o%w%" * 3}}] * 20}},
        {"where": {"nothing" * 50: 1}},
        {"cursor": "A" * 5_000},
        {"orderBy": {"field": "text"}, "offset": 900, "total": True},
        [[[[[{}]]]]] * 100,
    ]

    def act(dice: random.Random, client: httpx2.Client) -> str:
        match dice.randrange(5):
            case 0:
                return str(client.post(f"/v1/query/no-such-lens-{dice.randrange(10**6)}", json={}).status_code)
            case 1:
                request = client.build_request("POST", f"/v1/query/{lens}/export", json={})
                unread.append(client.send(request, stream=True))
                while len(unread) > _UNREAD_MAX:
                    unread.pop(0).close()
                return f"export {unread[-1].status_code}"
            case 2:
                return str(client.get(dice.choice(("/v1/audit", "/v1/keys", "/metrics", "/v1/events"))).status_code)
            case _:
                return str(client.post(f"/v1/query/{lens}", json=dice.choice(bodies)).status_code)

    party.run(act, party.settings["page"], pause=0.01)
    for answer in unread:
        answer.close()


def _foreign(party: _Party) -> None:
    """Changes its own environment without a pause, watches it, and asks for what is not its own."""
    streams: list[httpx2.Response] = []
    lens = party.settings["lens"]

    def act(dice: random.Random, client: httpx2.Client) -> str:
        name = f"thing{dice.randrange(50)}"
        match dice.randrange(8):
            case 0:
                body = {"name": name, "bridge": "sqlite", "credentials": "runner-local"}
                return f"source {client.post('/v1/sources', json=body).status_code}"
            case 1:
                return f"no source {client.delete(f'/v1/sources/{name}').status_code}"
            case 2:
                return f"key {client.post('/v1/keys', json={'kind': 'pk', 'name': name}).status_code}"
            case 3:
                sources = {
                    f"{name}-{n}": {"bridge": "sqlite", "credentials": "runner-local"}
                    for n in range(dice.randrange(40))
                }
                return f"push {client.post('/v1/push', json={'sources': sources}).status_code}"
            case 4 if len(streams) < _STREAMS_MAX:
                streams.append(client.send(client.build_request("GET", "/v1/events"), stream=True))
                return f"events {streams[-1].status_code}"
            case 5:
                path = dice.choice((f"/v1/lenses/{lens}", "/v1/sources/good", "/v1/runners/honest", "/v1/audit"))
                return f"reads {client.get(path).status_code}"
            case 6:
                return f"tests {client.post(f'/v1/sources/{dice.choice(_SOURCES)}/test').status_code}"
            case _:
                return f"foreign query {client.post(f'/v1/query/{lens}', json={}).status_code}"

    party.run(act, party.settings["foreign"], pause=0.1)
    for stream in streams:
        stream.close()


def _networks(party: _Party) -> None:
    """A balancer in TCP mode whose server is never there: it accepts, says a few bytes at times, and closes or resets."""
    dice = random.Random(party.settings["ports"][3])
    with socket.create_server(("127.0.0.1", party.settings["ports"][3])) as listener:
        listener.settimeout(0.2)
        while not party.is_over:
            try:
                caller, _ = listener.accept()
            except TimeoutError:
                continue
            with caller, contextlib.suppress(OSError):
                party.told["accepted"] += 1
                if dice.randrange(2):
                    caller.sendall(
                        dice.choice((b"HTTP/1.1 502 Bad Gateway\r\n\r\n", dice.randbytes(64), b"\x15\x03\x01"))
                    )
                if dice.randrange(2):
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _databases(party: _Party) -> None:
    """Servers that accept and stay silent, send garbage, or close, and callers of the sources behind which they stand."""
    silent: list[socket.socket] = []

    def be_silent(caller: socket.socket, _dice: random.Random) -> None:
        silent.append(caller)
        while len(silent) > 200:
            silent.pop(0).close()

    def garble(caller: socket.socket, dice: random.Random) -> None:
        with caller, contextlib.suppress(OSError):
            caller.settimeout(1)
            caller.recv(1024)
            caller.sendall(
                dice.choice((b"N", b"S", b"R\0\0\0\x08\0\0\0\0", b"E\x7f\xff\xff\xff")) + dice.randbytes(2_000)
            )

    def close(caller: socket.socket, _dice: random.Random) -> None:
        caller.close()

    for port, does in zip(party.settings["ports"], (be_silent, garble, close), strict=False):
        threading.Thread(target=_serve, args=(party, port, does), daemon=True).start()

    def act(dice: random.Random, client: httpx2.Client) -> str:
        name = dice.choice(_SOURCES)
        path = dice.choice((f"/v1/query/{name}", f"/v1/count/{name}", f"/v1/query/{name}/export"))
        answer = client.post(path, json={"timeoutMs": 2_000})
        return f"{name} {answer.json()['error']['code']}"

    party.run(act, party.settings["foreign"], pause=0.05)


def _serve(party: _Party, port: int, does: Callable[[socket.socket, random.Random], None]) -> None:
    dice = random.Random(port)
    with socket.create_server(("127.0.0.1", port)) as listener:
        while not party.is_over:
            caller, _ = listener.accept()
            does(caller, dice)


_PARTIES: Final[Mapping[str, Callable[[_Party], None]]] = {
    "publishable": _publishable,
    "foreign": _foreign,
    "networks": _networks,
    "databases": _databases,
}


def _main(kind: str, seconds: str, seed: str) -> None:
    party = _Party(json.loads(os.environ[SETTINGS_VARIABLE]), float(seconds), int(seed))
    _PARTIES[kind](party)
    print(json.dumps(party.told), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
