"""Every use case of a node, made once and handed to each front end."""

from __future__ import annotations

import dataclasses

from lensway.usecases.audit import Audit
from lensway.usecases.environments import Environments
from lensway.usecases.explain import Explanations
from lensway.usecases.fleet_details import FleetDetails
from lensway.usecases.fleet_pages import FleetPages
from lensway.usecases.keys import Keys
from lensway.usecases.lenses import Lenses
from lensway.usecases.overview import Overview
from lensway.usecases.pages import Pages
from lensway.usecases.push import Declarations
from lensway.usecases.query import Queries
from lensway.usecases.remedies import Remedies
from lensway.usecases.requests import Requests
from lensway.usecases.runners import Runners
from lensway.usecases.scaffold import Scaffolds
from lensway.usecases.sign_ins import SignIns
from lensway.usecases.sources import Sources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """Everything that can be done to a deployment, from any front end."""

    queries: Queries
    explanations: Explanations
    requests: Requests
    sources: Sources
    lenses: Lenses
    scaffolds: Scaffolds
    runners: Runners
    fleet: FleetPages
    details: FleetDetails
    overview: Overview
    remedies: Remedies
    environments: Environments
    keys: Keys
    declarations: Declarations
    audit: Audit
    sign_ins: SignIns
    pages: Pages
