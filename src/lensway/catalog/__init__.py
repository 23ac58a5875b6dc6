"""Room: catalog. What exists in a deployment, the rules by which it changes, and the snapshot that readers work on. Pure."""
