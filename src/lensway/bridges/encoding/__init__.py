"""How rows become bytes: JSON, NDJSON, CSV and Arrow."""
