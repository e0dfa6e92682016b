"""Fresh randomness and the right time, before anything else runs in a clone."""

import fcntl
import os
import struct
import time

from insula.protocol.control import Seed

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207


def take_seed(seed: Seed) -> None:
    """Credit the entropy, have the kernel's generator reseeded from it, set the clock."""
    generator = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        size = len(seed.entropy)
        fcntl.ioctl(generator, _RNDADDENTROPY, struct.pack("ii", size * 8, size) + seed.entropy)
        fcntl.ioctl(generator, _RNDRESEEDCRNG)
    finally:
        os.close(generator)
    set_clock(seed.clock)


def set_clock(clock: int) -> None:
    """Set the wall clock; nanoseconds since the epoch."""
    time.clock_settime_ns(time.CLOCK_REALTIME, clock)
