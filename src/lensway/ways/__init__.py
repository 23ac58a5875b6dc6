"""The way to a server: which proxy leads there, and why it fails. Used by runner, `doctor`, commands and clients alike."""
