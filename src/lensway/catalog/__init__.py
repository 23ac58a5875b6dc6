"""Room: catalog."""
