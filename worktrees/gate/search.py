"""Which of many make the whole fail: a bisection that only ever stands on what is known to be good.

Everything together is tried first. When that fails, the longest good beginning is searched for, by halves; whoever
comes right after it is a culprit, found without being tried alone: with it the beginning fails, without it it passes.
It is taken out, and what then remains is tried again. So a pair that only fails together costs its later half, one that
mends what an earlier one broke is not blamed, and the good rest has passed as a whole, never by inference.

Runs: at most 2 + E · (⌈log2 N⌉ + 1) for E culprits among N. One is for the ground itself, tried when the very first is
found to be a culprit: if that fails, nobody is to blame, and it counts as the one culprit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Item]):
    """What passed, together and in this order; who does not; whether nothing passes, not even nobody at all."""

    good: list[Item]
    culprits: list[Item] = field(default_factory=list)
    ground_fails: bool = False


def search(
    items: Sequence[Item],
    *,
    together: Callable[[Sequence[Item]], Sequence[Item]],
    passes: Callable[[Sequence[Item], int], bool],
) -> Verdict[Item]:
    """Finds the culprits among `items`, in order.

    `together` says which of some items get along at all, in order; who comes before an item that is taken out gets
    along as before. `passes` tries a beginning of such an answer, and is told how many more tries there may be before
    the next culprit is known; it is asked again for what it has answered already.
    """
    left, culprits = list(items), list[Item]()
    good = 0
    while True:
        current = together(left)
        low, high = good, len(current)
        if not current or passes(current, 0):
            return Verdict(list(current), culprits)
        while high - low > 1:
            middle = (low + high) // 2
            if passes(current[:middle], (high - low).bit_length() - 1):
                low = middle
            else:
                high = middle
        if high == 1 and not passes([], 0):
            return Verdict([], ground_fails=True)
        culprits.append(current[high - 1])
        left.remove(current[high - 1])
        good = high - 1
