"""Counts over the battery: ``python -m tests.battery.summary [words of a case's name]``."""

from __future__ import annotations

import sys
import traceback
from collections import Counter

import bnfold
from tests.battery import judge
from tests.battery.cases import ALL
from tests.battery.graphs import Case


def verdict(case: Case) -> tuple[str, str]:
    """One word for the case, and what is to be said about it."""
    original = case.build()
    try:
        result = bnfold.fold(original, verify=False).to_proto()
    except Exception:  # noqa: BLE001 - a crash of any kind is what is counted here
        return "crashed", traceback.format_exc(limit=-2)
    complaint = judge.newly_invalid(original, result)
    if complaint or judge.interface(result) != judge.interface(original):
        return "invalid", complaint or "the interface changed"
    wrong = judge.wrong_outputs(original, result)
    if wrong:
        return "wrong", "; ".join(wrong)
    left = judge.affine_count(result)
    gone = judge.affine_count(original) - left
    if gone and not case.foldable:
        return "folded more", f"{left} left"
    if not gone:
        return ("missed" if case.foldable else "left alone"), f"{left} left"
    if case.sites_left is not None and left > case.sites_left:
        return "folded in part", f"{left} left, {case.sites_left} expected"
    return "folded", f"{left} left"


def main(words: list[str]) -> None:
    quiet = {"folded", "left alone"}
    table: dict[str, Counter[str]] = {}
    for case in ALL:
        if any(word not in case.name for word in words):
            continue
        word, text = verdict(case)
        group = "direct" if case.scope == "issue2" else "beyond"
        table.setdefault(group, Counter())[word] += 1
        table[group]["foldable"] += case.foldable
        table[group]["total"] += 1
        if word not in quiet and (
            group == "direct" or word not in {"missed", "folded in part"}
        ):
            print(f"{word:15} {case.name}: {text}")  # noqa: T201 - this script prints
    for group, counts in table.items():
        print(group, dict(counts))  # noqa: T201 - this script prints


if __name__ == "__main__":
    main(sys.argv[1:])
