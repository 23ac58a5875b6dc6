"""Migrations of the metadata store, oldest first."""
