"""The conformance suite of bridges: one suite, one stage for each kind of database."""
