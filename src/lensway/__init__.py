"""Lensway: one safe query API over databases behind other people's firewalls."""

import importlib.metadata
from typing import Final

__version__: Final = importlib.metadata.version("lensway")
