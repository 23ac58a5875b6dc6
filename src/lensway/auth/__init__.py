"""Room: auth. Minting, hashing, scopes, sealing; decisions as pure functions."""
