"""SQL: compilation of plans, and one module per dialect."""
