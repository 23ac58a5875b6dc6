"""Lensway: one safe query API over databases behind other people's firewalls."""
