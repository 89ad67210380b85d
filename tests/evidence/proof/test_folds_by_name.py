"""Which fold wrote a tensor is looked up, not searched for through all folds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import bnfold
from benchmarks.long_graphs import long_graph
from bnfold.evidence.proof import accounting
from bnfold.evidence.proof.accounting import fold_of
from bnfold.records import Step


def _step(rule: str, site: tuple[str, ...], took: str, tensor: str) -> Step:
    return Step(rule, site, "up", (), (took,), (tensor,))


_FOLDS = (
    _step("Mul", ("m", "n"), "conv", "w"),
    _step("Add", ("a",), "conv", "b"),
    _step("Add", ("c",), "other", "w"),
    _step("Mul", tuple(f"n{place}" for place in range(9)), "last", "v"),
)


@pytest.mark.parametrize(
    ("name", "node", "said"),
    [
        ("w", "", "Mul m, n (up)"),
        ("b", "", "Add a (up)"),
        ("", "other", "Add c (up)"),
        ("b", "conv", "Mul m, n (up)"),
        ("c", "", "Add c (up)"),
        ("v", "", "Mul n0, n1, n2, n3, n4 and 4 more (up)"),
        ("nobody", "nowhere", ""),
    ],
)
def test_the_first_fold_that_names_it_is_told(name: str, node: str, said: str):
    assert fold_of(SimpleNamespace(folds=_FOLDS), name, node) == said  # type: ignore[arg-type]  # all it reads of one


def test_the_folds_are_gone_through_once_however_many_tensors_there_are(
    monkeypatch: pytest.MonkeyPatch,
):
    built = 0
    known = accounting._Folds.__init__

    def counted(self, folds):
        nonlocal built
        built += 1
        known(self, folds)

    monkeypatch.setattr(accounting._Folds, "__init__", counted)
    model = long_graph("conv-bn-relu chain", 60)
    result = bnfold.fold(model, verify=False, certificate=True)
    report = bnfold.verify(model, result, certificate=result.certificate, run=False)
    assert report.passed
    assert built <= 2  # written, and judged
