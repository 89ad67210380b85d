"""Write the table of rules into README.md from the docstrings of the rules.

python -m docs.rule_table           rewrites the table
python -m docs.rule_table --check   exits 1 if it is out of date
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Final

from bnfold.rules import RULES
from bnfold.rules.base import Rule

README: Final = Path(__file__).resolve().parent.parent / "README.md"
BEGIN: Final = "<!-- rules: begin (python -m docs.rule_table) -->"
END: Final = "<!-- rules: end -->"


def table() -> str:
    """Return the table: what each operator does with a map behind it and in front of it."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for kind, rule in RULES.items():
        groups.setdefault(_answers(rule), []).append(f"`{kind}`")
    lines = [
        "| operator | is itself the map | map behind it | map in front of it |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {', '.join(kinds)} | {' | '.join(cells)} |" for cells, kinds in groups.items()
    ]
    return "\n".join(lines)


def _answers(rule: Rule) -> tuple[str, str, str]:
    return (
        _first_line(rule, "source"),
        _first_line(rule, "take_after"),
        _first_line(rule, "take_before" if _answers_itself(rule) else "take_within"),
    )


def _answers_itself(rule: Rule) -> bool:
    """Return whether a rule takes maps at its inputs, not only from inside of it."""
    return type(rule).take_before is not Rule.take_before


def _first_line(rule: Rule, method: str) -> str:
    """Return the first line of a rule's own docstring; a dash where it says nothing itself."""
    found = getattr(type(rule), method)
    if found is getattr(Rule, method):
        return "–"
    text = inspect.getdoc(found) or ""
    return text.splitlines()[0].replace("``", "`").replace("|", "\\|").rstrip(".")


def updated(readme: str) -> str:
    """Return the README with a fresh table between the markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Rewrite the table, or check it."""
    current = README.read_text()
    fresh = updated(current)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if current == fresh else "README.md: run python -m docs.rule_table")
    README.write_text(fresh)


if __name__ == "__main__":
    main()
