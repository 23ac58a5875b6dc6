"""Every page of the Console. To add a page, declare its section and list it here."""

from __future__ import annotations

from collections.abc import Sequence

from lensway.clock import Clock
from lensway.console.fleet_sections import fleet_sections
from lensway.console.fragments import Templates
from lensway.console.key_sections import key_sections
from lensway.console.lens_sections import lens_sections
from lensway.console.record_sections import record_sections
from lensway.console.request_sections import request_sections
from lensway.console.sections import Section
from lensway.usecases.bundle import UseCases


def declared(use: UseCases, templates: Templates, clock: Clock) -> Sequence[Section]:
    """The sections of a node's Console."""
    return [
        *fleet_sections(use, templates, clock),
        *lens_sections(use, templates),
        *request_sections(use),
        *record_sections(use),
        *key_sections(use, templates),
    ]
