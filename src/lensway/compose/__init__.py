"""Room: compose. Where rooms are wired into programs; the two roots do not import each other."""
