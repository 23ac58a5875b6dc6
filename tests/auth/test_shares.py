"""Strangers share a listener's room by address; those that are known stay."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from lensway.auth.shares import Shares

PROXY = ipaddress.ip_network("10.0.0.1/32")


class Room:
    def __init__(self, **bounds: int) -> None:
        self.evicted: list[object] = []
        self.noted: list[str] = []
        values = {"in_all_max": 10, "strangers_max": 8, "per_address_max": 5, **bounds}
        self.shares = Shares(**values, patience_seconds=1.0, trusted=(PROXY,), note=self.noted.append)

    def enter(self, guest: object, address: str = "192.0.2.1", now: float = 0.0) -> bool:
        return self.shares.enter(guest, address, now, lambda: self.evicted.append(guest))


def test_an_address_has_its_share_and_its_oldest_goes_when_it_had_its_time() -> None:
    room = Room()
    assert [room.enter(guest) for guest in range(7)] == [True] * 5 + [False] * 2
    assert (room.evicted, room.noted) == ([], ["refused"] * 2)
    assert room.enter("later", now=1.0)
    assert (room.evicted, room.shares.count) == ([0], 5)
    assert room.enter("elsewhere", "192.0.2.2", now=1.0)


def test_a_block_of_ipv6_is_one_address() -> None:
    room = Room()
    assert [room.enter(number, f"2001:db8::{number}") for number in range(6)] == [True] * 5 + [False]


def test_a_crowd_makes_room_for_a_newcomer_from_elsewhere_at_once() -> None:
    room = Room()
    for number in range(5):
        assert room.enter(number)
    for number in range(3):
        assert room.enter(f"other {number}", f"192.0.2.{number + 10}")
    assert room.enter("newcomer", "192.0.2.99")
    assert room.evicted == [0]
    assert not room.enter("one more of the crowd")


def test_known_ones_stay_and_leave_room_for_strangers() -> None:
    room = Room()
    for number in range(5):
        assert room.enter(number)
        room.shares.know(number)
    assert [room.enter(f"stranger {number}", f"198.51.100.{number}") for number in range(5)] == [True] * 5
    assert room.enter("one more", "203.0.113.1", now=5.0)
    assert room.evicted == ["stranger 0"]
    for number in range(1, 5):
        room.shares.know(f"stranger {number}")
    room.shares.know("one more")
    assert not room.enter("too many", "203.0.113.2", now=9.0), "all are known"
    room.shares.leave("one more")
    assert room.enter("too many", "203.0.113.2", now=9.0)


def test_a_proxy_of_ours_is_no_stranger() -> None:
    room = Room()
    assert [room.enter(number, "::ffff:10.0.0.1") for number in range(11)] == [True] * 10 + [False]


def test_asked_again_a_guest_has_one_place() -> None:
    room = Room(per_address_max=1)
    assert room.enter("guest")
    assert room.enter("guest")
    room.shares.leave("guest")
    room.shares.leave("guest")
    assert room.shares.count == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "know", "leave"]), st.integers(0, 30), st.integers(1, 6), st.floats(0, 2)),
        max_size=120,
    )
)
def test_the_bounds_hold_whatever_happens(steps: list[tuple[str, int, int, float]]) -> None:
    room, inside, now = Room(), {}, 0.0
    for what, guest, address, later in steps:
        now += later
        if what == "enter":
            before = len(room.evicted)
            if room.enter(guest, f"192.0.2.{address}", now):
                inside.setdefault(guest, (f"192.0.2.{address}", False))
            for gone in room.evicted[before:]:
                assert not inside.pop(gone)[1], "one that is known stays"
        elif guest in inside and what == "know":
            room.shares.know(guest)
            inside[guest] = (inside[guest][0], True)
        elif what == "leave":
            room.shares.leave(guest)
            inside.pop(guest, None)
        strangers = [block for block, is_known in inside.values() if not is_known]
        assert room.shares.count == len(inside) <= 10
        assert len(strangers) <= 8
        assert all(strangers.count(block) <= 5 for block in strangers)
