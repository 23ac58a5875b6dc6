"""Room: bridges."""
