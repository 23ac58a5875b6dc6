"""The settings of a source that is a file."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence

from lensway.bridges.kit.failures import invalid_setting


def path_of(config: Mapping[str, object], kind: str, *, others: Sequence[str] = ()) -> str:
    """The path that these settings name, as `path` or as a URL whose scheme is the kind; ``others`` are further known keys.

    Raises:
        LenswayError: INVALID_REQUEST naming the key.
    """
    for key in config:
        if key not in ("path", "url", *others):
            raise invalid_setting(
                str(key)[:63],
                f"unknown setting of a {kind} source",
                hint=f"Known: {', '.join(('path', *others))}.",
            )
    path = config.get("path")
    if path is None and isinstance(config.get("url"), str):
        parts = urllib.parse.urlsplit(str(config["url"]))
        if parts.scheme != kind or parts.netloc or parts.query:
            raise invalid_setting("url", f"must be {kind}:///absolute/path")
        path = urllib.parse.unquote(parts.path)
    if not isinstance(path, str) or not path:
        raise invalid_setting("path", "is missing")
    return path
