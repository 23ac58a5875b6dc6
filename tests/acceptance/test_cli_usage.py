"""What somebody new to the command line types, and what it answers: the right form, named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lensway.api.routes import ROUTES
from lensway.cli.main import run
from lensway.testing.deployment import clean_environment
from tools import commands

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("where", "form"),
    [
        ("id=1", "--where '{\"id\": 1}'"),
        ("id = 1", "--where '{\"id\": 1}'"),
        ("customer='Smith & Co'", '--where \'{"customer": "Smith & Co"}\''),
        ("total>=1.50", '--where \'{"total": {"$gte": 1.50}}\''),
        ("note!=null", '--where \'{"note": {"$ne": null}}\''),
        ("id:1", '{"total": {"$gt": 100}}'),
        ("{'id': 1}", '{"total": {"$gt": 100}}'),
        ("[1]", '{"total": {"$gt": 100}}'),
        ("", '{"total": {"$gt": 100}}'),
    ],
)
def test_a_filter_in_another_form_is_shown_in_the_right_one(
    shared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, where: str, form: str
) -> None:
    monkeypatch.setenv("LENSWAY_URL", shared.url)
    monkeypatch.setenv("LENSWAY_API_KEY", shared.admin_key)
    assert run(["query", "orders", "--where", where]) == 2
    shown = capsys.readouterr().err
    assert form in shown
    assert shown.startswith("lensway: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("query", "orders", "--select", ""), "--select is empty"),
        (("query", "orders", "--select", "id,,total"), "--select has an empty part"),
        (("query", "orders", "--order-by", " "), "--order-by is empty"),
        (("export", "orders", "--order-by", ""), "--order-by is empty"),
        (("explain", "orders", "--select", ","), "--select has an empty part"),
        (("query", "orders", "--cursor", ""), "--cursor is empty"),
        (("query", "orders", "--all", "--offset", "3"), "exclude each other"),
        (("keys", "create", "sk", "x", "--expires", "0s"), "90d"),
        (("keys", "create", "sk", "x", "--expires", "soon"), "90d"),
        (("keys", "create", "sk", "x", "--expires", ""), "90d"),
        (("pull", "--format", "csv"), "no form csv"),
        (("sign-ins", "end", "."), "'.' is not a name"),
        (("runners", "show", ".."), "'..' is not a name"),
        (("lenses", "delete", ""), "'' is not a name"),
        (("query", "."), "'.' is not a name"),
        (("sources", "tables", "main", ""), "'' is not a name"),
        (("runners", "list", "--env", ""), "--env is empty"),
        (("runners", "list", "--profile", ""), "--profile is empty"),
        (("runners", "update", "alpha"), "--no-network"),
        (("sources", "update", "main"), "nothing to change"),
    ],
)
def test_what_is_empty_or_misspelt_is_refused_by_name(
    shared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments, named: str
) -> None:
    monkeypatch.setenv("LENSWAY_URL", shared.url)
    monkeypatch.setenv("LENSWAY_API_KEY", shared.admin_key)
    assert run(arguments) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("runners", "show"), ["lensway: `runners show` needs RUNNER", "  See lensway runners show --help"]),
        (("query", "orders", "--limit"), ["lensway: --limit of `query` needs a value.", "  See lensway query --help"]),
        (
            ("runners", "show", "alpha", "sk_secret", "beta"),
            [
                "lensway: `runners show` takes no further argument; got a key, 'beta'",
                "  See lensway runners show --help",
            ],
        ),
        (
            ("runners", "list", "--format", "xml"),
            [
                'lensway: Invalid value "xml" for --format. Choose from: "table", "json", "ndjson", "csv".',
                "  See lensway runners list --help",
            ],
        ),
    ],
)
def test_a_wrong_use_is_a_line_and_where_to_read_on(capsys: pytest.CaptureFixture, arguments, lines) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.splitlines() == lines


def test_a_file_that_declares_nothing_is_refused(shared, tmp_path) -> None:
    file = tmp_path / "lensway.toml"
    for text in ("", "# only a comment\n", "{}"):
        file.write_text(text)
        done = shared.cli("push", "--prune", str(file))
        assert (done.returncode, "declares nothing" in done.stderr) == (2, True), (text, done.stderr)


def test_a_directory_of_sources_that_is_missing_is_refused(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", "serve", "--source-dir", "nowhere"],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "--source-dir nowhere" in done.stderr) == (2, True), done.stderr


def test_a_config_that_is_piped_without_its_option_is_refused(stage, tmp_path) -> None:
    program = [sys.executable, "-m", "lensway.cli.main", "sources", "create", f"{stage.source}-piped"]
    program += ["--bridge", "postgres"]
    environment = clean_environment() | {"LENSWAY_URL": stage.deployment.url}
    environment |= {"LENSWAY_API_KEY": stage.deployment.admin_key}
    config = json.dumps({"url": stage.database.reader_url})
    file = tmp_path / "config.json"
    file.write_text(config)

    def created(*options: str, **given) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *options], env=environment, capture_output=True, text=True, timeout=60, check=False, **given
        )

    with file.open() as redirected:
        for given in ({"input": config}, {"stdin": redirected}):
            done = created(**given)
            assert (done.returncode, "--config-stdin" in done.stderr) == (2, True), done.stderr
            assert stage.database.reader_password not in done.stderr
    assert created("--config-stdin", input=config).returncode == 0
    assert created(input="the rest of a list\nthat a loop reads\n").returncode == 1, "there is one of that name already"


def test_pages_follow_each_other_by_cursor_and_offset(stage) -> None:
    cli = stage.deployment.cli
    first = json.loads(cli("query", stage.lens, "--limit", "2", "--select", "id").stdout)
    second = cli("query", stage.lens, "--limit", "2", "--select", "id", "--cursor", first["meta"]["nextCursor"])
    skipped = cli("query", stage.lens, "--limit", "2", "--select", "id", "--offset", "2", "--format", "csv")
    assert [row["id"] for row in json.loads(second.stdout)["rows"]] == [3, 4]
    assert skipped.stdout.split() == ["id", "3", "4"]


def test_a_key_is_deleted_by_a_name_that_only_it_has(stage) -> None:
    cli, name = stage.deployment.cli, f"{stage.source}-key"
    made = [json.loads(cli("keys", "create", "sk", name, "--json").stdout) for _ in range(2)]
    twice = cli("keys", "delete", name)
    assert twice.returncode == 1
    assert all(key["id"] in twice.stderr for key in made), "both are named, so that one can be chosen"
    assert cli("keys", "delete", made[0]["id"]).returncode == 0
    once = cli("keys", "delete", name)
    assert (once.returncode, made[1]["id"] in once.stderr) == (0, True), once.stderr
    gone = cli("keys", "delete", name)
    assert (gone.returncode, "not_found" in gone.stderr or "no key" in gone.stderr) == (1, True)


COMMANDS = {
    "query": "query",
    "export": "export",
    "explain": "explain",
    "count": "count",
    "list_lenses": "lenses list",
    "show_lens": "lenses show",
    "show_request": "requests",
    "cancel_request": "requests",
    "create_environment": "environments create",
    "list_environments": "environments list",
    "delete_environment": "environments delete",
    "create_source": "sources create",
    "list_sources": "sources list",
    "show_source": "sources show",
    "patch_source": "sources update",
    "delete_source": "sources delete",
    "test_source": "sources test",
    "list_tables": "sources tables",
    "show_table": "sources tables",
    "scaffold_source": "lenses scaffold",
    "check_lens": "lenses check",
    "put_lens": "lenses put",
    "delete_lens": "lenses delete",
    "create_runner": "runners create",
    "list_runners": "runners list",
    "show_runner": "runners show",
    "patch_runner": "runners update",
    "delete_runner": "runners delete",
    "rotate_runner": "runners rotate",
    "revoke_runner": "runners revoke",
    "drain_runner": "runners drain",
    "resume_runner": "runners resume",
    "list_runner_sources": "runners show",
    "assign": "runners assign",
    "unassign": "runners unassign",
    "list_assignments": "runners assignments",
    "push": "push",
    "config": "pull",
    "create_key": "keys create",
    "list_keys": "keys list",
    "delete_key": "keys delete",
    "list_sign_ins": "sign-ins list",
    "end_sign_ins": "sign-ins end",
    "end_sign_in": "sign-ins end",
    "list_requests": "requests",
    "events": "events",
    "audit": "audit",
    "verify_audit": "audit verify",
    "export_audit": "audit export",
}
FOR_MACHINES = {"healthz", "readyz", "openapi", "metrics"}


def test_every_route_has_a_command() -> None:
    names = {route.name for route in ROUTES}
    assert names - FOR_MACHINES == set(COMMANDS), "a route without a command, or a command for none"
    there = {" ".join(words[1:]) for words, _ in commands.leaves()}
    assert set(COMMANDS.values()) <= there


def test_parts_of_runners_and_sources_are_changed_and_requests_filtered(stage) -> None:
    cli = stage.deployment.cli
    stage.runner("alpha", start=False)
    name = stage.name("alpha")
    assert json.loads(cli("runners", "update", name, "--network", "paris").stdout)["network"] == "paris"
    assert json.loads(cli("runners", "update", name, "--no-network").stdout)["network"] is None
    changed = json.loads(cli("sources", "update", stage.source, "--execution", "runner_required").stdout)
    assert (changed["execution"], changed["hasConfig"]) == ("runner_required", True)
    assert stage.query().status_code == 503
    assert cli("sources", "update", stage.source, "--execution", "auto").returncode == 0
    assert stage.query().status_code == 200
    stage.assign("alpha")
    pairs = json.loads(cli("runners", "assignments").stdout)
    assert {"runner": name, "source": stage.source} in [{k: each[k] for k in ("runner", "source")} for each in pairs]
    mine = json.loads(cli("requests", "--lens", stage.lens).stdout)
    assert len(mine) == 2
    failed = json.loads(cli("requests", "--lens", stage.lens, "--failed").stdout)
    assert [each["outcome"] for each in failed] == ["source_requires_runner"]
