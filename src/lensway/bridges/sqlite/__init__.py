"""The bridge to SQLite."""
