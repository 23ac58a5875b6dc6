"""Local settings of sources, from the runner's own environment: the network owner's word on how a database is reached.

``LENSWAY_SOURCE_<NAME>_URL`` or ``LENSWAY_SOURCE_<NAME>_<KEY>``, each also with ``_FILE``; NAME in upper case, ``-`` → ``_``.
The longest assigned name wins a variable. Pure but for reading the files.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lensway.auth.secret import bare
from lensway.kinds import BUILT_IN, Kinds

_PREFIX: Final = "LENSWAY_SOURCE_"
_FILE: Final = "_FILE"
INVALID: Final = "invalid"
"""The key that stands for a variable that cannot be used; its value says which, and why."""


class LocalCredentials:
    """What the environment says of sources. Values are secrets; nothing here prints them."""

    def __init__(self, environment: Mapping[str, str], kinds: Kinds = BUILT_IN) -> None:
        self._kinds = kinds
        self._variables = {
            name.removeprefix(_PREFIX): value for name, value in environment.items() if name.startswith(_PREFIX)
        }

        self._files = tuple(value for name, value in self._variables.items() if name.endswith(_FILE))
        self._marks = self._marks_now()

    @property
    def has_files(self) -> bool:
        """True when some settings stand in files, which may change."""
        return bool(self._files)

    def files_changed(self) -> bool:
        """True when a file is another one than at the last call. Blocks on the file system."""
        before, self._marks = self._marks, self._marks_now()
        return before != self._marks

    def _marks_now(self) -> list[tuple[int, int, int] | None]:
        return [_mark_of(path) for path in self._files]

    def __repr__(self) -> str:
        """The number of variables, never a value."""
        return f"LocalCredentials({self.count} variables)"

    @property
    def count(self) -> int:
        """How many variables there are."""
        return len(self._variables)

    def problems(self) -> list[str]:
        """What is wrong with variables, whichever source they belong to. Blocks on the file system."""
        found = []
        for variable in sorted(self._variables):
            value, wrong = self._value(variable, is_file=variable.endswith(_FILE))
            if variable.endswith(("_URL", f"_URL{_FILE}")):
                wrong = wrong or _wrong_url(bare(value))
            if wrong:
                found.append(f"{_PREFIX}{variable} {wrong}")
        return found

    def address_keys_of(self, bridge: str) -> frozenset[str]:
        """The settings of this kind of database that a local URL replaces as a whole."""
        kind = self._kinds.get(bridge)
        return frozenset() if kind is None else kind.address_keys

    def ambiguous(self, names: Iterable[str]) -> frozenset[str]:
        """The assigned names that stand for the same variables as another assigned one."""
        by_variable: dict[str, list[str]] = {}
        for name in names:
            by_variable.setdefault(variable_of(name), []).append(name)
        return frozenset(name for same in by_variable.values() if len(same) > 1 for name in same)

    def divided(self, names: Iterable[str]) -> dict[str, list[str]]:
        """The variables of each of these sources, by the part of their names that stands for it; the longest name wins one."""
        known = set(map(variable_of, names))
        found: dict[str, list[str]] = {}
        for variable in sorted(self._variables):
            end = variable.rfind("_")
            while end > 0 and variable[:end] not in known:
                end = variable.rfind("_", 0, end)
            if end > 0:
                found.setdefault(variable[:end], []).append(variable)
        return found

    def settings_of(self, name: str, names: Iterable[str]) -> dict[str, str]:
        """The settings of one source as `settings_in` gives them; ``names`` are all assigned ones."""
        return self.settings_in(name, self.divided(names))

    def settings_in(self, name: str, divided: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The settings of one source, by key in lower case; ``divided`` are the variables of all assigned ones.

        A file is read now, so that a rotated secret is found whenever the settings are looked at again. A variable that cannot be
        used gives the key `INVALID` with its name and what is wrong, which no bridge knows.
        """
        own = variable_of(name)
        found: dict[str, str] = {}
        for variable in divided.get(own, ()):
            key = variable.removeprefix(own + "_")
            if not key:
                continue
            value, wrong = self._value(variable, is_file=key.endswith(_FILE))
            key = key.removesuffix(_FILE).lower() if key.endswith(_FILE) else key.lower()
            if key == "url":
                value = bare(value)
                wrong = wrong or _wrong_url(value)
            if wrong:
                found.setdefault(INVALID, f"{_PREFIX}{variable} {wrong}")
            elif variable.endswith(_FILE):
                found[key] = value
            else:
                found.setdefault(key, value)
        return found

    def _value(self, variable: str, *, is_file: bool) -> tuple[str, str]:
        """The value of a variable, or of its file; and what is wrong with it, without its content."""
        value = self._variables[variable]
        if not is_file:
            is_wrong = not value.strip() and not variable.endswith("_PASSWORD")
            return value, "is set and empty" if is_wrong else ""
        path = bare(value)
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return "", f"names {path}, which does not exist"
        except UnicodeDecodeError:
            return "", f"names {path}, which is not text in UTF-8"
        except (OSError, ValueError):
            return "", f"names {path}, which this user cannot read"
        text = text.removeprefix("\ufeff").strip()
        return text, "" if text else f"names {path}, which is empty"


def _wrong_url(url: str) -> str:
    if url[:1] in ("'", '"', "\u201c", "\u2018"):
        return "begins with a quotation mark"
    if any(char.isspace() for char in url):
        return "holds white space"
    return ""


def differ_in_password_only(some: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """True when both settings name the same place and login."""
    return _without_password(some) == _without_password(others)


def _without_password(local: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in local.items() if key != "password"}
    if "url" in kept:
        before, at, after = kept["url"].rpartition("@")
        scheme, mark, login = before.partition("://")
        kept["url"] = f"{scheme}{mark}{login.partition(':')[0]}{at}{after}"
    return kept


def _mark_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = pathlib.Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def variable_of(name: str) -> str:
    """The part of a variable's name that stands for a source."""
    return name.upper().replace("-", "_")


def merged(
    managed: Mapping[str, object], local: Mapping[str, str], *, address_keys: frozenset[str]
) -> dict[str, object]:
    """Managed settings with local ones over them, key by key. ``address_keys`` are those of the kind of database.

    A local URL replaces the managed address, login and transport security whole: whoever manages the source must not be able to
    lower the security of a connection on which local credentials travel.
    """
    if "url" in local:
        kept = {key: value for key, value in managed.items() if key not in address_keys}
        return {**kept, **local}
    return {**managed, **local}
