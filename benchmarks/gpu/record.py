"""The results of a run: one JSON file and a page, rewritten whole after every step."""

from __future__ import annotations

import datetime
import gzip
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.arms import write_whole
from benchmarks.gpu import tables

SCHEMA: Final = "bnfold/gpu-run/3"
_ENDINGS: Final = (".json", ".md", ".samples.jsonl.gz")


@dataclass(slots=True)
class Options:
    """What was asked for.

    Attributes:
        minutes: How long the whole run may take.
        out: Where results go.
        cache: Where exported networks lie.
        nets: The networks, by name or as ``.onnx`` files.
        only: The sections to run; empty for all.
        dry_run: Whether the CPU walks the path with tiny networks.
        samples: Whether every sample is kept, in a file beside the results.
        install_launches: Whether a tuned table also goes into the package.
        resume: An earlier result of the same device, whose measurements are kept.
    """

    minutes: float
    out: Path
    cache: Path
    nets: tuple[str, ...]
    only: tuple[str, ...] = ()
    dry_run: bool = False
    samples: bool = True
    install_launches: bool = False
    resume: Path | None = None

    @property
    def provider(self) -> str:
        """The execution provider: CUDA's, and the CPU's in a dry run."""
        return "cpu" if self.dry_run else "cuda"


@dataclass(slots=True)
class Record:
    """Results as they grow, and the files they are written to.

    Attributes:
        document: What the JSON file holds.
        stem: The path of both files without their endings.
        clock: Seconds, never backwards.
    """

    document: dict[str, Any]
    stem: Path
    clock: Callable[[], float] = time.monotonic
    begun_s: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.begun_s = self.begun_s or self.clock()

    @property
    def json_path(self) -> Path:
        """Where the results are."""
        return self.stem.with_name(f"{self.stem.name}.json")

    @property
    def page_path(self) -> Path:
        """Where the table is."""
        return self.stem.with_name(f"{self.stem.name}.md")

    @property
    def samples_path(self) -> Path:
        """Where every sample is: a line of JSON for each benchmark, compressed one by one."""
        return self.stem.with_name(f"{self.stem.name}.samples.jsonl.gz")

    def keep_samples(self, key: str, document: Mapping[str, Any]) -> None:
        """Add the whole document of a benchmark to the file of samples."""
        self.samples_path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "document": document}, default=str) + "\n"
        with self.samples_path.open("ab") as file:
            file.write(gzip.compress(line.encode("utf-8")))

    def save(self) -> None:
        """Write both files whole; a page that cannot be made costs no result."""
        self.document["elapsed_s"] = round(self.clock() - self.begun_s, 1)
        text = json.dumps(
            self.document, ensure_ascii=False, separators=(",", ":"), default=str
        )
        write_whole(self.json_path, text + "\n")
        try:
            page = tables.page(self.document)
        except (KeyError, TypeError, ValueError):
            page = f"The table could not be made:\n\n```\n{traceback.format_exc()}```\n"
        write_whole(self.page_path, page)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Log a step with its time; its error is logged, the results saved, and it goes on.

        Ctrl-C passes through. The entry that is yielded may be given an outcome.
        """
        begun = self.clock()
        entry: dict[str, Any] = {"step": name, "at_s": round(begun - self.begun_s, 1)}
        entry |= {"outcome": "ok"}
        self.document["log"].append(entry)
        try:
            yield entry
        except Exception as error:  # noqa: BLE001  one step's failure must not cost the others
            entry["outcome"] = said(error)
            entry["traceback"] = traceback.format_exc()
        except KeyboardInterrupt:
            entry["outcome"] = "interrupted"
            raise
        finally:
            entry["seconds"] = round(self.clock() - begun, 1)
            self.save()
            tell(f"{entry['at_s']:7.1f} s  {name}: {entry['outcome']}, {entry['seconds']} s")


@dataclass(slots=True)
class Context:
    """What a section is given.

    Attributes:
        options: What was asked for.
        record: Where its results go.
        until_s: When the section must be over, by the record's clock.
        state: What its ``prepare`` returned, if it has one.
    """

    options: Options
    record: Record
    until_s: float
    state: Any = None

    @property
    def left_s(self) -> float:
        """Seconds until the section must be over."""
        return self.until_s - self.record.clock()

    def results(self, section: str) -> dict[str, Any]:
        """Return the part of the document that belongs to a section, to write into."""
        part: dict[str, Any] = self.record.document["sections"].setdefault(section, {})
        return part


def said(error: BaseException) -> str:
    """Write an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def tell(line: str) -> None:
    """Tell on stderr what happens; stdout is for where the results are."""
    print(line, file=sys.stderr, flush=True)


def begin(options: Options, device: str, command: str) -> dict[str, Any]:
    """Return the head of a document."""
    return {
        "schema": SCHEMA,
        "device": device,
        "dry_run": options.dry_run,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "minutes": options.minutes,
        "ended": "under way",
        "elapsed_s": 0.0,
        "environment": {},
        "sections": {},
        "log": [],
    }


def free_stem(folder: Path, name: str) -> Path:
    """Return a path without ending at which no result lies yet: none is ever overwritten."""
    for number in range(1, 1000):
        stem = folder / (name if number == 1 else f"{name}-{number}")
        if not any(stem.with_name(stem.name + end).exists() for end in _ENDINGS):
            return stem
    message = f"{folder} is full of results called {name}"
    raise FileExistsError(message)
