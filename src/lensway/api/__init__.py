"""Room: api. The shapes of the HTTP contract and the one table of routes. Pure."""
