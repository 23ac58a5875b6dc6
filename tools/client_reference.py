"""The client's methods for its page, from the client itself. `python -m tools.reference` writes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from lensway import client


def methods() -> Iterator[str]:
    """Each method of the client and of a stream, with its parameters and the first line of its text."""
    for kind in (client.Client, client.Stream):
        yield f"**`{kind.__name__}`**, **`Async{kind.__name__}`**"
        yield ""
        for name, method in vars(kind).items():
            if not name.startswith("_") and callable(method):
                yield f"- `{name}({_parameters(method)})`: {_summary(method)}"
        yield ""


def _parameters(method: object) -> str:
    assert callable(method)
    found = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        has_default = parameter.default is not parameter.empty
        found.append(f"{parameter.name}={parameter.default!r}" if has_default else parameter.name)
    return ", ".join(found)


def _summary(method: object) -> str:
    return " ".join((inspect.getdoc(method) or "").partition("\n\n")[0].split())
