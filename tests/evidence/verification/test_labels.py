"""Accuracy, agreement and McNemar's test, against numbers worked out by hand."""

import numpy as np
import pytest

from bnfold.errors import DataError
from bnfold.evidence.verification.labels import compare_labels, mcnemar, read_labels


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 0.0625),  # 2 / 2**5
        (0, 6, 0.03125),
        (8, 2, 0.109375),  # 2 · (1 + 10 + 45) / 2**10
        (10, 10, 1.0),
        (1500, 1700, 0.000434),  # normal approximation with correction: 0.00044
    ],
)
def test_mcnemar_is_the_exact_binomial(lost, won, p):
    assert mcnemar(lost, won) == pytest.approx(p, rel=0.02)
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_counts_and_shares():
    labels = np.array([0, 1, 2, 1])
    before = [np.eye(3)[[0, 1]], np.eye(3)[[2, 0]]]  # right, right, right, wrong
    after = [np.eye(3)[[0, 2]], np.eye(3)[[1, 1]]]  # right, wrong, wrong, right
    found = compare_labels(labels, before, after, "y")
    assert (found.accuracy_original, found.accuracy_folded) == (0.75, 0.5)
    assert (found.agreement, found.only_original, found.only_folded) == (0.25, 2, 1)
    assert found.p_value == 1.0


def test_classes_given_as_integers_are_taken_as_they_are():
    found = compare_labels(np.array([3, 4]), [np.array([3, 4])], [np.array([3, 5])], "y")
    assert (found.accuracy_original, found.accuracy_folded) == (1.0, 0.5)


def test_another_number_of_samples_is_said():
    with pytest.raises(DataError, match="3 labels were given, 2 samples"):
        compare_labels(np.array([0, 1, 2]), [np.eye(2)], [np.eye(2)], "y")


def test_every_kind_of_file(tmp_path):
    wanted = [3, 1, 2]
    np.save(tmp_path / "a.npy", np.array(wanted)[:, None])
    np.savez(tmp_path / "a.npz", labels=wanted, images=np.zeros((3, 2)))
    np.savez(tmp_path / "b.npz", whatever=np.array(wanted, np.uint8))
    (tmp_path / "a.txt").write_text("3\n1\n2\n")
    (tmp_path / "a.csv").write_text("3,1,2\n")
    for name in ("a.npy", "a.npz", "b.npz", "a.txt", "a.csv"):
        assert read_labels(tmp_path / name).tolist() == wanted, name
    assert read_labels(wanted).tolist() == wanted


def test_what_is_no_list_of_integers_is_said(tmp_path):
    np.savez(tmp_path / "two.npz", a=[1], b=[2])
    (tmp_path / "words.txt").write_text("cat dog")
    with pytest.raises(DataError, match="it has a, b: name one of them 'labels'"):
        read_labels(tmp_path / "two.npz")
    with pytest.raises(DataError, match="could not convert string to float"):
        read_labels(tmp_path / "words.txt")
    with pytest.raises(DataError, match="not integers"):
        read_labels([0.5, 1.0])
    with pytest.raises(DataError, match=r"shape \(2, 2\)"):
        read_labels([[1, 2], [3, 4]])
    with pytest.raises(DataError, match="No such file"):
        read_labels(tmp_path / "none.npy")
