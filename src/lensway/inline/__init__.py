"""The service's own executor, behind the same port as a session's link."""
