"""The scripts of others are what their authors published."""

from __future__ import annotations

import hashlib
import pathlib

import lensway.console

VENDORED = {"idiomorph-0.7.4.min.js": "0eb0f881553bd509fe7a7e3064a1089141e089583c506c1217e885a2e608b4a4"}
"""SHA-256 of `dist/idiomorph.min.js` in the package idiomorph 0.7.4 on npm."""


def test_vendored_scripts_are_as_published() -> None:
    folder = pathlib.Path(lensway.console.__file__).parent / "static" / "vendor"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert found == VENDORED
