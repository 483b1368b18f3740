"""Imports torch and sleeps in `time.sleep`: a PyTorch process that does nothing at all."""

from __future__ import annotations

import signal
import time
from types import FrameType

from common import Run, parser


class _Stop(Exception):
    pass


def main() -> None:
    with Run(parser(__doc__).parse_args()) as run:

        def stop(number: int, frame: FrameType | None) -> None:
            # time.sleep goes on after a handler that returns; only an exception ends it.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise _Stop

        signal.signal(signal.SIGTERM, stop)
        try:
            run.say_ready()
            time.sleep(3600)
        except _Stop:
            pass


if __name__ == "__main__":
    main()
