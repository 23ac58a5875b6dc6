"""The audit lists what happened last first, also what happened often and was written later as one row with a count."""

from __future__ import annotations

import pathlib
import secrets

import pytest

from lensway.testing.deployment import Deployment, wait_until

pytestmark = pytest.mark.acceptance


def moment(entry: dict) -> str:
    return entry["until"] or entry["at"]


def test_repeated_entries_stand_where_they_happened_last(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        wrong = [deployment.client("sk_" + secrets.token_urlsafe(32)) for _ in range(2)]
        for number in range(6):
            for each in wrong:
                assert each.get("/v1/lenses").status_code == 401
            if number == 1:
                # The first of them is written alone; what follows is counted and written later, behind the changes.
                wait_until(
                    lambda: any(e["action"] == "authenticate" for e in client.get("/v1/audit").json()["entries"]),
                    seconds=5,
                    what="the first row",
                )
            created = client.post("/v1/environments", json={"name": f"e{number}"})
            assert created.status_code == 201
        entries = client.get("/v1/audit").json()["entries"]
        assert any(entry["count"] > 1 for entry in entries)
        assert [moment(entry) for entry in entries] == sorted(map(moment, entries), reverse=True)
        # Pages by the answer's own mark hold every row once.
        walked, before = [], None
        while True:
            params = {"limit": 3} | ({} if before is None else {"before": before})
            page = client.get("/v1/audit", params=params).json()
            walked += [entry["sequence"] for entry in page["entries"]]
            before = page["before"]
            if before is None:
                break
        assert len(walked) == len(set(walked))
        assert set(walked) >= {entry["sequence"] for entry in entries}
        lines = deployment.cli("audit", "--json").stdout
        assert '"until"' in lines
