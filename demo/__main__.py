"""`make demo`: the main job on real data. `--once` tells the story and exits; otherwise it keeps serving until Ctrl-C."""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import tempfile
import time

from demo import stage as stages
from demo import story


def main() -> int:
    """Tell the story; 0 when everything went as told."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the story instead of serving on")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lensway-demo-", ignore_cleanup_errors=True) as directory:
        pathlib.Path(directory).chmod(0o755)  # PostgreSQL may run as another user, who must be able to pass through
        stage = stages.start(pathlib.Path(directory))
        try:
            story.tell(stage)
            stages.say("")
            stages.say(f"The story took {time.monotonic() - started:.0f} s.")
            if not options.once:
                story.keep_serving(stage)
                signal.pause()
        except stages.StoryBrokenError as error:
            stages.say(f"\nThe demo does not work here: {error}")
            return 1
        except KeyboardInterrupt:
            stages.say("\nstopping")
        finally:
            stages.stop(stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
