"""Room: gateway. The listener that runners dial; frames in, dispatch events out; pushes assignment sets."""
