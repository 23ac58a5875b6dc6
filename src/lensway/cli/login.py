"""`lensway login`, `logout` and `profiles`: servers with their keys, in a file that only its owner may read."""

from __future__ import annotations

import getpass
import os
import re
import sys
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from lensway.cli import forms, names, output, report, screen, states, target
from lensway.cli.tables import Column
from lensway.client import profiles as stored
from lensway.errors import ErrorCode, LenswayError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY: Final = re.compile(r"(ak|sk|pk)_[A-Za-z0-9_-]+")
_KEY_CHARACTERS_MAX: Final = 1_000
_COLUMNS: Final = (
    Column("PROFILE", "name", rank=0),
    Column("URL", "url", rank=0),
    Column("ENVIRONMENT", lambda profile: profile["environment"] or "default", rank=2),
    Column("KEY", lambda profile: f"{profile['kind']}_…", rank=3),
    Column("USED", lambda profile: states.shown("current") if profile["current"] else Text(""), rank=1),
)
_FIELDS: Final = ("name", "url", "environment", "kind", "current")


def login(
    url: Annotated[
        str | None, Parameter(help="The server; default: that of the profile, LENSWAY_URL, or this machine.")
    ] = None,
    key: Annotated[str | None, Parameter(show=False)] = None,
    /,
    *,
    profile: Annotated[str, Parameter(env_var="LENSWAY_PROFILE", help="The name to store it under.")] = "default",
    env: Annotated[str | None, Parameter(help="Environment that this profile selects.")] = None,
    ca_file: Annotated[str | None, Parameter(help="Certificates to trust instead of the system's.")] = None,
    insecure: Annotated[
        bool, Parameter(negative=(), help="Allow http:// to another machine: the key is sent in clear text.")
    ] = False,
) -> None:
    """Store a server and a key for it, once the server has accepted the key. Other commands use it from then on.

    The key comes from a prompt without echo, or from the first line of standard input. It is never an argument.
    """
    if key is not None or (url is not None and _KEY.match(url)):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "login takes the key from a prompt or from standard input, never as an argument, which other users can see",
            hint="lensway login URL. Replace a key that you have typed into a shell: it is in its history.",
        )
    if not _NAME.fullmatch(profile):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{profile!r} is not a valid profile name",
            hint="Use letters, digits, dots, dashes and underscores, for example --profile staging.",
        )
    file = stored.path(os.environ)
    before = stored.read(file).profiles.get(profile)
    chosen = url or (before.url if before else None) or os.environ.get("LENSWAY_URL") or stored.DEFAULT_URL
    ca_file = os.path.abspath(ca_file) if ca_file else os.environ.get("LENSWAY_CA_FILE") or None  # noqa: PTH100
    target.check_url("the URL", chosen, insecure=insecure)
    found = stored.Profile(
        url=chosen.rstrip("/"), key=_key_given(chosen), environment=env, ca_file=ca_file, insecure=insecure
    )
    with target.opened(stored.Given(profile=found, place="the URL"), insecure=insecure) as client:
        # Every kind of key may ask this; a wrong key or environment is refused.
        lenses = client.call("GET", "/v1/lenses")["lenses"]
    with stored.locked(file):
        everything = stored.read(file)
        stored.write(file, stored.Profiles(current=profile, profiles={**everything.profiles, profile: found}))
    place = f"environment {env}" if env else "its environment"
    report.write_note(f"profile {profile}: {found.url}, {len(lenses)} lenses in {place}; stored in {file}")
    if os.environ.get("LENSWAY_API_KEY"):
        report.write_note("LENSWAY_API_KEY is set and replaces the profile: unset it, or use --profile")


def logout(
    *,
    profile: Annotated[str | None, Parameter(help="The profile to remove; default: the current one.")] = None,
    all: Annotated[bool, Parameter(negative=(), help="Remove every profile.")] = False,
) -> None:
    """Remove a stored profile with its key. The key itself stays valid; `lensway keys delete` ends it."""
    if all and profile is not None:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "--all and --profile exclude each other")
    file = stored.path(os.environ)
    with stored.locked(file):
        found = stored.read(file)
        names = list(found.profiles) if all else [profile or os.environ.get("LENSWAY_PROFILE") or found.current or ""]
        if names == [""]:
            report.write_note(
                "no profile is stored" if not found.profiles else "no profile is in use: add --profile NAME"
            )
            if found.profiles:
                sys.exit(report.USAGE_EXIT)
            return
        for name in names:
            found.named(name)
        rest = {name: each for name, each in found.profiles.items() if name not in names}
        stored.write(file, stored.Profiles(current=found.current if found.current in rest else None, profiles=rest))
    for name in names:
        report.write_note(f"profile {name} removed; its key stays valid until `lensway keys delete` ends it")


profiles = App(name="profiles", help="The profiles that `lensway login` has stored.")


@profiles.default
def list_(*, to: forms.Output = forms.OUTPUT) -> None:
    """List the stored profiles, without their keys."""
    form = to.form
    found = stored.read(stored.path(os.environ))
    records: list[dict[str, Any]] = [
        {
            "name": name,
            "url": each.url,
            "environment": each.environment,
            "kind": each.key.partition("_")[0],
            "current": name == found.current,
        }
        for name, each in sorted(found.profiles.items())
    ]
    output.write_list(form, records, _COLUMNS, empty="no profiles yet: lensway login URL", fields=_FIELDS)


@profiles.command
def use(profile: names.Profile) -> None:
    """Select the profile that commands use by default."""
    file = stored.path(os.environ)
    with stored.locked(file):
        found = stored.read(file)
        found.named(profile)
        stored.write(file, msgspec.structs.replace(found, current=profile))
    report.write_note(f"profile {profile} is used from now on")


def _key_given(url: str) -> str:
    """The key from a prompt, or from a pipe. It is checked for its form only."""
    if sys.stdin.isatty():
        try:
            text = getpass.getpass(f"API key for {screen.text_of(url)}: ")
        except EOFError:
            text = ""
    else:
        text = sys.stdin.readline(_KEY_CHARACTERS_MAX)
    key = text.removeprefix("\ufeff").strip()
    if not key:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "no key was given", hint="Type it at the prompt, or pipe it in.")
    if key.startswith("rk_"):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "this is the token of a runner, not an API key",
            hint="Put it into LENSWAY_RUNNER_TOKEN where the runner starts.",
        )
    if not _KEY.fullmatch(key):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, "this is not an API key", hint="A key begins with ak_, sk_ or pk_."
        )
    return key
