"""Room: protocol."""
