"""Run every GPU check and measurement of the project within ten minutes on one GPU.

    python benchmarks/gpu/run_all.py [--minutes 10] [--only SECTION …] [--nets a,b,…]
        [--out DIR] [--cache DIR] [--resume RESULT.json] [--no-samples] [--install-launches]
        [--dry-run]

Needs neither an installation of bnfold nor the internet. Results go to
``benchmarks/results/<date>-<device>.json`` and a page beside it, rewritten after every step;
every sample to ``….samples.jsonl.gz``. Whatever ends the run costs only the step under way.
``--dry-run`` walks the whole path on a CPU with tiny networks. Exit codes: 0 done, 1 a test or
a section failed, 2 usage, 4 no GPU or no GPU build of ONNX Runtime, 130 interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import json
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final

if not __package__:
    # Started as a script: the root of the repository in place of this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks import arms
from benchmarks.gpu import machine, nets, planner
from benchmarks.gpu.record import (
    SCHEMA,
    Context,
    Options,
    Record,
    begin,
    free_stem,
    said,
    tell,
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the run.

    Attributes:
        module: It has ``run(context)``, and may have ``prepare(context)``, which is called
            before all sections and whose result is the context's ``state``.
        weight: Its share of the time.
        on_request: Whether it runs only where ``--only`` names it.
    """

    module: str
    weight: float
    on_request: bool = False


SECTIONS: Final = {
    "tests": Section("benchmarks.gpu.gpu_tests", 1.5),
    "tune": Section("benchmarks.gpu.tune_launches", 6.0, on_request=True),
    "training": Section("benchmarks.gpu.training", 2.0),
    "inference": Section("benchmarks.gpu.inference", 6.0),
}
"""In order. A new one is a line here, and a module; a module that is not there is said."""

_RESULTS: Final = Path("benchmarks/results")
_MINUTES: Final = 10.0
_DRY_MINUTES: Final = 0.6
_WITHOUT_RUNTIME: Final = "or leave inference out: --only training --only tests"
_BAD, _USAGE, _UNABLE, _INTERRUPTED = 1, 2, 4, 130


def main(argv: list[str] | None = None) -> int:
    """Check the machine, run the sections, keep what was found; return the exit code."""
    options = _options(argv)
    device = machine.DRY if options.dry_run else machine.gpu_name()
    if not device:
        return _refuse(
            "no GPU here: nvidia-smi and the CUDA driver show none",
            "run this on a machine with an NVIDIA GPU, or try the path with --dry-run",
        )
    try:
        earlier = _earlier(options, device)
    except (OSError, ValueError) as error:
        tell(f"error: cannot resume: {error}")
        return _USAGE
    lacking = _lacking_provider(options.provider) if "inference" in _chosen(options) else ""
    if lacking:
        return _refuse(lacking, _WITHOUT_RUNTIME)
    command = " ".join(["python", "benchmarks/gpu/run_all.py", *(argv or sys.argv[1:])])
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    stem = free_stem(options.out, f"{day}-{machine.slug(device)}")
    record = Record(begin(options, device, command) | earlier, stem)
    return _run(record, options)


def _chosen(options: Options) -> dict[str, Section]:
    asked = options.only or tuple(n for n, one in SECTIONS.items() if not one.on_request)
    return {name: one for name, one in SECTIONS.items() if name in asked}


def _refuse(why: str, remedy: str = "") -> int:
    tell(f"error: {why}" + (f"\n  next:  {remedy}" if remedy else ""))
    return _UNABLE


def _run(record: Record, options: Options) -> int:
    """Run the sections; whatever ends this, the results are in the files."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    document = record.document
    try:
        with record.step("environment"):
            document["environment"] = machine.environment()
        with record.step("all sections") as entry:
            _run_sections(record, options)
        document["ended"] = "done" if entry["outcome"] == "ok" else "failed"
    except KeyboardInterrupt:
        document["ended"] = "interrupted"
    finally:
        _last_reading(record)
        print(record.json_path)
        print(record.page_path)
    if document["ended"] == "interrupted":
        return _INTERRUPTED
    return _BAD if _went_wrong(document) else 0


def _as_ctrl_c(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _last_reading(record: Record) -> None:
    with record.step("last reading"):
        record.document["gpu_after"] = machine.reading()


def _run_sections(record: Record, options: Options) -> None:
    until = record.begun_s + 60 * options.minutes
    chosen = _chosen(options)
    modules = _loaded(record, chosen)
    contexts = {name: Context(options, record, until) for name in modules}
    for name, module in modules.items():
        if hasattr(module, "prepare"):
            with record.step(f"prepare {name}"):
                contexts[name].state = module.prepare(contexts[name])
    weights = [chosen[name].weight for name in modules]
    for index, (name, module) in enumerate(modules.items()):
        now = record.clock()
        contexts[name].until_s = now + planner.section_s(until - now, weights[index:])
        part = contexts[name].results(name)
        part |= {"status": "under way", "why": ""}
        with record.step(f"section {name}") as entry:
            part |= {"status": "failed"}
            module.run(contexts[name])
            part |= {"status": "done"}
        if part["status"] == "failed":
            part["why"] = entry["outcome"]
    if not any(record.document.get("resumed_rows", {}).values()):
        record.document.pop("resumed_rows", None)


def _loaded(record: Record, chosen: dict[str, Section]) -> dict[str, ModuleType]:
    """Import the sections; one that is not there, or does not load, is said."""
    found = {}
    for name, section in chosen.items():
        part = record.document["sections"].setdefault(name, {"status": "missing"})
        if importlib.util.find_spec(section.module) is None:
            part["why"] = f"there is no {section.module} yet"
            tell(f"section {name}: {part['why']}")
            continue
        with record.step(f"load {name}") as entry:
            found[name] = importlib.import_module(section.module)
        if name not in found:
            part |= {"status": "failed", "why": entry["outcome"]}
    return found


def _went_wrong(document: dict[str, Any]) -> bool:
    """Whether a section failed, or its verdict is not that all is well."""
    sections = document["sections"].values()
    return document["ended"] == "failed" or any(
        part.get("status") == "failed" or part.get("verdict") in ("failed", "cut off")
        for part in sections
    )


def _lacking_provider(provider: str) -> str:
    """Judge a tiny network on the provider; return what is missing here, or nothing."""
    try:
        bnfold = importlib.import_module("bnfold")
        errors = importlib.import_module("bnfold.errors")
    except ImportError as error:
        return f"bnfold does not load: {error}\n  next:  install what pyproject.toml lists"
    try:
        with tempfile.TemporaryDirectory(prefix="bnfold-gpu-") as folder:
            path = Path(folder) / "tiny.onnx"
            nets.write_free(path)
            report = bnfold.verify(path, path, provider=provider, max_time=5.0)
        tell(f"{provider}: a tiny network against itself: {report.verdict}")
    except errors.MissingDependencyError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  only what is missing ends the run before it began
        tell(f"{provider}: a tiny network could not be judged: {said(error)}; going on")
    return ""


def _earlier(options: Options, device: str) -> dict[str, Any]:
    """Read the measurements of an earlier run on the same kind of device.

    Sections that are not run again stay as they were; the others are given their rows.

    Raises:
        ValueError: If it is of another device, or no result of this version of the script.
    """
    if options.resume is None:
        return {}
    document = json.loads(options.resume.read_text(encoding="utf-8"))
    if document.get("device") != device:
        message = f"{options.resume} is of {document.get('device')}, and this is {device}"
        raise ValueError(message)
    if document.get("schema") != SCHEMA:
        message = f"{options.resume} has schema {document.get('schema')}, not {SCHEMA}"
        raise ValueError(message)
    name, chosen = str(options.resume), _chosen(options)
    kept = {
        section: [{"from": name, **row} for row in part.get("rows", [])]
        for section, part in document["sections"].items()
        if section in chosen
    }
    others = {one: part for one, part in document["sections"].items() if one not in chosen}
    return {"resumed_rows": kept, "resumed_from": name, "sections": others}


def _options(argv: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, help=f"default {_MINUTES:g}")
    parser.add_argument("--only", action="append", choices=tuple(SECTIONS), default=[])
    parser.add_argument("--nets", help="names or .onnx files, with commas between them")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--cache", type=Path, help="exported networks, kept from run to run")
    parser.add_argument("--resume", type=Path, metavar="RESULT.json")
    parser.add_argument("--no-samples", dest="samples", action="store_false")
    parser.add_argument("--install-launches", action="store_true", help="into bnfold/train")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args(argv)
    if asked.install_launches and (asked.dry_run or "tune" not in asked.only):
        parser.error("--install-launches takes --only tune, and no dry run measures anything")
    minutes = _DRY_MINUTES if asked.dry_run else _MINUTES
    default = nets.dry_nets() if asked.dry_run else tuple(arms.NETS)
    return Options(
        minutes=minutes if asked.minutes is None else asked.minutes,
        out=asked.out,
        cache=asked.cache or Path(tempfile.gettempdir()) / "bnfold-nets",
        nets=tuple(filter(None, asked.nets.split(","))) if asked.nets else default,
        only=tuple(asked.only),
        dry_run=asked.dry_run,
        samples=asked.samples,
        install_launches=asked.install_launches,
        resume=asked.resume,
    )


if __name__ == "__main__":
    sys.exit(main())
