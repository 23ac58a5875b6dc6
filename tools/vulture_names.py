"""Names that only look unused: what protocols and libraries call by name."""
