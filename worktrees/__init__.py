"""Parallel agents in isolated git worktrees: spawn, see what they really changed, merge it, take it back.

`Boss` is the Python API. It is imported on first use (PEP 562), so `import worktrees` costs nothing and the command
line pays only for what a command needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be most of what the start of a supervisor costs
if TYPE_CHECKING:
    from typing import Any

    from worktrees.boss import Boss

__version__ = "0.1.0"
__all__ = ["Boss", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Boss":
        from worktrees.boss import Boss

        return Boss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
