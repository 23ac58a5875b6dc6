"""The decisions of dispatch: pure, events in, instructions out."""
