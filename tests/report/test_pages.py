"""Pages: the answer first, whole, safe, self-contained, made from the document alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser

import pytest

from bnfold.errors import BnfoldError, MissingDependencyError, UsageError
from bnfold.folding.api import fold_unchecked
from bnfold.report.to_html import to_html
from bnfold.report.to_json import bench_document, fold_document, verify_document
from tests.report import made
from tests.small import conv_bn

COMMAND = "bnfold bench model.onnx --batch 1,8,32 --report 'a & b.html'"


def _bench(report):
    drawn = made.pictures(report.fold) if report.fold else ()
    return bench_document(replace(report, pictures=drawn), COMMAND)


def _fold(check):
    report = made.fold_report()
    return fold_document(report, check, made.pictures(report), "model.onnx")


def _digits():
    result = fold_unchecked("models/digits_cnn.onnx")
    return fold_document(result.report, None, (), "models/digits_cnn.onnx")


DOCUMENTS = {
    "bench_cpu": lambda: _bench(made.cpu_report()),
    "bench_cuda": lambda: _bench(made.cuda_report()),
    "bench_partial": lambda: _bench(made.partial_report()),
    "bench_empty": lambda: _bench(made.empty_report()),
    "bench_single": lambda: _bench(made.single_process_report()),
    "bench_hostile": lambda: _bench(made.hostile_report()),
    "fold_passed": lambda: _fold(made.passed_check()),
    "fold_failed": lambda: _fold(made.failed_check()),
    "fold_conv_bn": lambda: fold_document(fold_unchecked(conv_bn()).report, None),
    "fold_digits": _digits,
    "verify_passed": lambda: verify_document(made.passed_check(), "a.onnx", "b.onnx"),
    "verify_failed": lambda: verify_document(made.failed_check(), "a.onnx", "b.onnx"),
    "verify_unjudged": lambda: verify_document(made.unjudged_check(), "a.onnx", "b.onnx"),
}


@cache
def document(name):
    return DOCUMENTS[name]()


@cache
def page(name):
    return to_html(document(name))


class Reader(HTMLParser):
    """Reads a page strictly: what opens must close, and ids are given once."""

    EMPTY = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.links = [], [], [], []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        assert len(told) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append(tag)
        self.ids += [told["id"]] if "id" in told else []
        self.links += [told[key] for key in ("href", "src", "xlink:href") if key in told]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_is_well_formed_and_stands_alone(name):
    reader = read(page(name))
    assert len(set(reader.ids)) == len(reader.ids), "an id is given twice"
    assert "script" not in reader.tags
    inside = {f"#{one}" for one in reader.ids} | {"data:,"}
    assert set(reader.links) <= inside
    assert "://" not in page(name).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert " style=" not in page(name), "the page's policy would not let it have any effect"
    assert reader.tags.count("h1") == 1
    assert "nan" not in reader.text.lower().split()


@pytest.mark.parametrize(
    "name", ["bench_cuda", "bench_partial", "fold_passed", "verify_failed"]
)
def test_a_page_comes_from_the_json_alone(name):
    through_a_file = json.loads(json.dumps(document(name), allow_nan=False))
    assert to_html(through_a_file) == page(name)


def test_the_answer_comes_first_in_plain_words():
    text = read(page("bench_cpu")).text
    assert "faster at 2 of 3 batch sizes" in text
    said = text.replace("\u00a0", " ")
    first = (
        "Folded is 1.15× as fast as the original as the runtime runs it, at batch 1 (13.0 %"
    )
    assert first in said
    assert said.index(first) < said.index("What explains it") < said.index("Which is faster?")
    assert "a difference of 0.84 % or more would have been found" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "bench_cuda",
            ["Warnings", "SW power cap", "The GPU meanwhile", "captured and replayed"],
        ),
        ("bench_partial", ["cut short", "out of memory", "not measured", "interrupted"]),
        ("bench_empty", ["not measured", "the process died"]),
        ("bench_single", ["too few processes for an interval (1)"]),
        ("bench_cpu", ["15", "Affine nodes that still run", "AMD EPYC", COMMAND]),
        ("fold_passed", ["18 maps folded", "×17", "shift meets padding", "explicit padding"]),
        ("fold_failed", ["NOT the same function", "/layer3/conv2", "value"]),
        ("fold_digits", ["BatchNormalization 3 → 0", "not checked"]),
        ("verify_passed", ["the same function", "1.57", "98.20%", "19"]),
        ("verify_failed", ["NOT the same function", "∞", "differs by 1.2e-02", "Warnings"]),
        ("verify_unjudged", ["could not be judged", "ONNX Runtime is not installed"]),
    ],
)
def test_a_page_says_what_matters(name, expected):
    text = read(page(name)).text
    for words in expected:
        assert words in text, words


def test_names_cannot_break_out_of_a_page():
    html = page("bench_hostile")
    assert "<script" not in html.lower()
    assert '<script>alert("x")</script>' in read(html).text


def test_a_page_may_do_nothing_but_show_itself():
    html = page("bench_cpu")
    style = html[html.index("<style>") + len("<style>") : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    rules = unescape(found.group(1)).split("; ")
    assert rules[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert rules[2:] == ["img-src data:", "base-uri 'none'", "form-action 'none'"]
    assert found.start() < html.index("<style>")


def test_pages_are_the_same_every_time():
    assert to_html(document("bench_cuda")) == page("bench_cuda")


def test_a_pattern_is_drawn_once_and_its_likes_behind_a_click():
    html = page("fold_passed")
    assert html.index('<figure class="drawing">') < html.index("<details>")
    assert html.count('<figure class="drawing">') == 18


def test_no_more_than_sixty_folds_are_drawn():
    report = made.fold_report()
    picture = made.pictures(report)[0]
    many = fold_document(report, None, [picture] * 200, "m.onnx")
    html = to_html(many)
    assert html.count('<figure class="drawing">') == 60
    assert "×200" in html


def test_another_document_is_refused():
    with pytest.raises(UsageError, match="schema"):
        to_html({"schema": "other/1"})
    with pytest.raises(BnfoldError, match="cannot read"):
        to_html({"schema": "bnfold/bench-report/1"})


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"bnfold\[report\]"):
        to_html(document("bench_empty"))


def test_heavy_packages_wait_until_a_page_is_made():
    code = (
        "import sys, bnfold.report.to_html, bnfold.report.to_markdown;"
        "heavy = {'matplotlib', 'jinja2', 'torch', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
