"""Which server to call with which key when a program does not say: variables, or a profile that `lensway login` has stored.

A profile is taken whole: its key never goes to a server that another setting names.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from lensway.client.core import Connection, unusable

DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEFAULT_PROFILE: Final = "default"
_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_KEY_BYTES_MAX: Final = 4_096
_YES: Final = frozenset({"1", "true", "yes"})
_IS_POSIX: Final = os.name == "posix"


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server with a key for it."""

    url: str
    key: str
    environment: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    """Allow ``http://`` to another machine, as `lensway login --insecure` was told."""

    def __repr__(self) -> str:
        return f"Profile(url={self.url!r}, environment={self.environment!r})"


class Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """Every profile by its name, and which one is used by default."""

    current: str | None = None
    profiles: dict[str, Profile] = {}

    def named(self, name: str) -> Profile:
        """The profile. Raises InvalidRequestError."""
        if name not in self.profiles:
            known = ", ".join(map(repr, sorted(self.profiles))) or "none"
            raise unusable(
                f"there is no profile {name!r}; stored: {known}", f"lensway login URL --profile {name} stores one."
            )
        return self.profiles[name]


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What to call, and where that was found: the name of a variable or of a profile."""

    profile: Profile
    place: str


def path(environment: Mapping[str, str]) -> pathlib.Path:
    """Where profiles are stored: below XDG_CONFIG_HOME, or ``~/.config``."""
    base = environment.get("XDG_CONFIG_HOME", "")
    # A relative one is to be ignored, says the specification.
    folder = pathlib.Path(base) if pathlib.Path(base).is_absolute() else pathlib.Path.home() / ".config"
    return folder / "lensway" / "profiles.json"


def read(file: pathlib.Path) -> Profiles:
    """The stored profiles; none when there is no file.

    Raises:
        InvalidRequestError: when others may read the file, or it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read()
    except FileNotFoundError:
        return Profiles()
    except OSError as error:
        raise unusable(f"cannot read {file}: {error.strerror}") from None
    if _IS_POSIX and mode & _FOR_OTHERS:
        raise unusable(
            f"{file} holds keys, and other users of this machine may read it",
            f"chmod 600 {file}. If others may have read it, replace the keys: `lensway keys create`, `keys delete`.",
        )
    try:
        return msgspec.json.decode(data, type=Profiles)
    except msgspec.DecodeError:
        raise unusable(f"{file} is not a file of profiles", "Move it away, and run `lensway login` again.") from None


def write(file: pathlib.Path, profiles: Profiles) -> None:
    """Replace the stored profiles by these, in a file that only its owner may read.

    Raises:
        InvalidRequestError: when it cannot be written.
    """
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = pathlib.Path(os.path.realpath(file))  # a link stays one
        partial = file.with_name(partial.name)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(msgspec.json.format(msgspec.json.encode(profiles), indent=2) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        raise unusable(f"cannot write {file}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: pathlib.Path) -> Iterator[None]:
    """Keep other commands from changing the profiles meanwhile, so that none loses what another one stored."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        yield
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise unusable(f"cannot write {file}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def given(environment: Mapping[str, str], name: str | None = None) -> Given:
    """The server and key to use: profile ``name``, or the variables, or the profile of LENSWAY_PROFILE, or the current one.

    LENSWAY_ENVIRONMENT and LENSWAY_CA_FILE replace what a profile says.

    Raises:
        InvalidRequestError: when nothing or too much is said.
    """
    url, key = environment.get("LENSWAY_URL"), environment.get("LENSWAY_API_KEY")
    wanted = name or environment.get("LENSWAY_PROFILE")
    if name is None and wanted and (url or key):
        both = "LENSWAY_API_KEY" if key else "LENSWAY_URL"
        raise unusable(f"LENSWAY_PROFILE and {both} are both set", "Unset one of the two, or select with --profile.")
    if name is None and key:
        found = Given(profile=Profile(url=url or DEFAULT_URL, key=key), place="LENSWAY_URL")
    else:
        found = _stored(environment, wanted, url if name is None else None)
    replaced = {
        "environment": environment.get("LENSWAY_ENVIRONMENT") or found.profile.environment,
        "ca_file": environment.get("LENSWAY_CA_FILE") or found.profile.ca_file,
    }
    return Given(profile=msgspec.structs.replace(found.profile, **replaced), place=found.place)


def connection(name: str | None = None) -> Connection:
    """The connection of `given`, from this process's variables. Raises InvalidRequestError."""
    environment = dict(os.environ)
    file = environment.get("LENSWAY_API_KEY_FILE")
    if file and not environment.get("LENSWAY_API_KEY"):
        environment["LENSWAY_API_KEY"] = _key_in(file)
    profile = given(environment, name).profile
    return Connection(
        url=profile.url,
        key=profile.key,
        environment=profile.environment,
        ca_file=profile.ca_file,
        is_insecure=profile.insecure or environment.get("LENSWAY_INSECURE", "") in _YES,
    )


def _key_in(file: str) -> str:
    try:
        with pathlib.Path(file).open("rb") as opened:
            return opened.read(_KEY_BYTES_MAX).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise unusable(f"LENSWAY_API_KEY_FILE names {file}, which cannot be read as text") from None


def _stored(environment: Mapping[str, str], wanted: str | None, url: str | None) -> Given:
    stored = read(path(environment))
    name = wanted or stored.current
    if name is None:
        raise unusable(
            "LENSWAY_API_KEY is not set, and no profile is stored",
            "lensway login URL stores a key for a server; or export LENSWAY_URL and LENSWAY_API_KEY. The server printed its "
            "first admin key when it started for the first time.",
        )
    profile = stored.named(name)
    if url is not None and url.rstrip("/") != profile.url.rstrip("/"):
        raise unusable(
            f"LENSWAY_API_KEY is not set, and profile {name!r} is for another server than LENSWAY_URL",
            "Unset LENSWAY_URL to use the profile, or set LENSWAY_API_KEY to a key of that server.",
        )
    return Given(profile=profile, place=f"profile {name!r}")
