"""Room: service. HTTP: data plane and control plane; the use cases that the Console shares; inline execution."""
