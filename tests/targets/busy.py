"""Pure Python that never sleeps; runs on every interpreter since 3.6."""

import sys

sys.stdout.write("ready\n")
sys.stdout.flush()
while True:
    x = [str(i) + "x" for i in range(100)]
