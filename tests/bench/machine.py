"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def describe_machine() -> str:
    """Name the processor, the kernel, the interpreter and how busy the machine is."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    processor = found[1] if found else platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores of {processor}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.2f}"
    )
