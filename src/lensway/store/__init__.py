"""Room: store. SQL persistence of the catalog and migrations; credentials at rest."""
