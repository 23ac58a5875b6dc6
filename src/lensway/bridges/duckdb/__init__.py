"""The bridge to DuckDB."""
