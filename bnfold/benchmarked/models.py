"""The models of a benchmark as files: as they are, folded, converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.folding.api import FoldResult, fold_unchecked
from bnfold.folding.pictures import pictures_of
from bnfold.inputs.signature import differences
from bnfold.measurement.arms import Subject
from bnfold.measurement.subjects import subject
from bnfold.model.graphs import graphs_of
from bnfold.model.io import Openable, opened
from bnfold.model.save import save
from bnfold.records import FoldReport, Picture

if TYPE_CHECKING:
    pass

_FOLDED_ARMS: Final = frozenset({"folded", "folded-plain"})


@dataclass(frozen=True, slots=True)
class Models:
    """The files to measure, and what the fold did where it was made for this."""

    original: Subject
    folded: Subject
    more: Mapping[str, Subject]
    report: FoldReport | None = None
    pictures: tuple[Picture, ...] = ()

    def mapped(self, change: Callable[[Subject], Subject]) -> Models:
        """The same with every file changed; one that serves twice is changed once."""
        original = change(self.original)
        same = self.folded == self.original
        more = {name: change(one) for name, one in self.more.items()}
        return replace(
            self,
            original=original,
            folded=original if same else change(self.folded),
            more=more,
        )


def gather_models(
    model: Openable,
    folded: Openable | None,
    more: Sequence[Openable] | Mapping[str, Openable],
    arms: Sequence[str],
    folder: Path,
) -> Models:
    """The files to measure: those that are there, and those that have to be made.

    Args:
        model: The original.
        folded: The folded model; None folds the original, if an arm needs it.
        more: Further models.
        arms: What is to be measured.
        folder: For files that are made.

    Raises:
        ModelError: If a model cannot be read, or reads other inputs than the original.
    """
    original = _subject(model, "original", folder)
    report: FoldReport | None = None
    pictures: tuple[Picture, ...] = ()
    if folded is not None:
        other = _subject(folded, "folded", folder)
        _check_interface(original, other)
    elif _FOLDED_ARMS & set(arms):
        result = fold_unchecked(model)
        other, report = _saved(result, original, folder), result.report
        pictures = pictures_of(opened(model), result.model, report.steps)
    else:
        other = original
    return Models(original, other, dict(_further(more, original, folder)), report, pictures)


def _subject(model: Openable, word: str, folder: Path) -> Subject:
    """The file as it is, once it was read; of a model in memory, a file of our own."""
    graph = opened(model, "benchmark")
    if isinstance(model, str | Path):
        return subject(Path(model), str(model))
    path = folder / f"{word}.onnx"
    save(graph, path)
    return subject(path, f"{word} ({type(model).__name__})")


def with_own_data(one: Subject, folder: Path) -> Subject:
    """The same with its data in a file of our own: onnx's reader follows no links."""
    graph = opened(one.path, "benchmark")
    values = (
        value for inner in graphs_of(graph.graph) for value in inner.initializers.values()
    )
    if not any(isinstance(value.const_value, ir.ExternalTensor) for value in values):
        return one
    path = folder / f"own-{one.path.stem}-{len(list(folder.iterdir()))}.onnx"
    save(graph, path)
    return replace(subject(path, one.shown), size_bytes=one.size_bytes)


def _saved(result: FoldResult, original: Subject, folder: Path) -> Subject:
    path = folder / "folded.onnx"
    result.save(path)
    return subject(path, f"{original.shown}, folded by bnfold")


def _further(
    more: Sequence[Openable] | Mapping[str, Openable], original: Subject, folder: Path
) -> Iterator[tuple[str, Subject]]:
    named = more if isinstance(more, Mapping) else _by_stem(more)
    for index, (name, one) in enumerate(named.items()):
        other = _subject(one, f"more{index}", folder)
        _check_interface(original, other)
        yield name, other


def _by_stem(models: Sequence[Openable]) -> dict[str, Openable]:
    """By the name of the file without its ending, or of a model in memory by its number."""
    stems = [Path(one).stem for one in models if isinstance(one, str | Path)]
    found: dict[str, Openable] = {}
    for number, model in enumerate(models, 1):
        name = f"model {number}"
        if isinstance(model, str | Path):
            stem = Path(model).stem
            name = stem if stems.count(stem) == 1 else str(model)
        found[name] = model
    return found


def _check_interface(original: Subject, other: Subject) -> None:
    """Arms run on the same inputs, so they must read the same."""
    unlike = differences(opened(original.path), opened(other.path))
    wrong = [one for one in unlike if one.startswith("input")]
    if wrong:
        raise ModelError(
            "the models read different inputs",
            where=other.shown,
            why="; ".join(wrong),
            remedy="compare models with the same inputs",
        )
