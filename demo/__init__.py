"""The demo: the main job of Lensway on a real public data set."""
