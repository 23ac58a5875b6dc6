"""The bridge to PostgreSQL."""
