"""Room: runner. Dials out, keeps alive, accepts, executes, streams; local credentials, local policy, doctor. Never listens."""
