"""Room: service. HTTP: data plane, control plane, and the servers that listen for callers."""
