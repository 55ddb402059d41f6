"""How a process died, in plain words; and did the kernel kill it for memory?"""

from __future__ import annotations

import contextlib
import signal

CRASHES = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS")
    if hasattr(signal, name)
}
"""What native code ends with, and nobody sends."""


def obituary(who: str, number: int, was_oom: bool) -> str:
    """That ``who`` was killed by signal ``number``, and why, as far as that can be told."""
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    why = ""
    if was_oom:
        from tokenmill.memory import memory_limit
        from tokenmill.units import format_bytes

        why = (
            "; the kernel's out-of-memory killer took it (memory limit "
            f"{format_bytes(memory_limit())})"
        )
    elif number == signal.SIGKILL:
        why = "; another process sent it, or the machine ran out of memory"
    elif number in CRASHES:
        why = "; native code crashed"
    return f"{who} was killed by signal {number} ({name}){why}"


def oom_kills() -> int:
    """How many processes the kernel has killed for memory in this cgroup, as far as it tells."""
    total = 0
    from tokenmill.memory import cgroup_folders

    for folder in cgroup_folders():
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                for line in (folder / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        total += int(value)
    return total
