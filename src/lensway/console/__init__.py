"""Room: console. Web pages over the same use cases as the HTTP API."""
