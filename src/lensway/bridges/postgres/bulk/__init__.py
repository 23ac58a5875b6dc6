"""The bulk path of PostgreSQL: large results as the server's own binary or text copy."""
