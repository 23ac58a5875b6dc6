"""Room: observe. What can be observed, and where it goes: log, metrics."""
