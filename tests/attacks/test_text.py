"""Names that attack: no face shows one raw, none is built otherwise than for tame names."""

from __future__ import annotations

import ast
import html
import io
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from onnx import TensorProto, helper

import bnfold
from bnfold.cli.main import main
from bnfold.errors import BnfoldError, ModelError
from bnfold.report import canvas
from bnfold.report.to_html import _environment, to_html
from bnfold.report.to_json import bench_document, export_document, to_json, verify_document
from bnfold.report.to_markdown import to_markdown
from bnfold.safe_text import (
    LONGEST_LINE,
    LONGEST_WORD,
    for_html,
    for_json,
    for_json_in_ascii,
    for_markdown,
    shown_lines,
    visible,
    visible_document,
)
from tests.attacks.faces import (
    SGR,
    all_texts,
    assert_safe,
    blocks,
    built_alike,
    cells,
    elements,
    run,
    shown_by_markdown,
)
from tests.attacks.hostile_names import (
    FRAGMENTS,
    all_different,
    names,
    renamed,
    renamings,
    tame_model,
    texts_of,
)
from tests.report import made

PACKAGE = Path(bnfold.__file__).parent
anything = st.text() | st.text(st.characters(categories=("Cc", "Cf", "Cs", "Mn", "Zs", "Zl")))
EVERY_FRAGMENT = all_different(list(FRAGMENTS))
FEW_TO_A_NAME = [
    all_different(list(FRAGMENTS[start::4])) for start in range(4)
]  # every fragment stands in one of these models

# --------------------------------------------------------------------------- one text


@given(anything | names)
@example("\udc80\ud800")
@example("a" * 10_000 + " " + "b" * 10_000)
@example("\x1b" * 5000)
def test_what_is_made_visible_is_one_safe_bounded_line(text):
    shown = visible(text)
    assert_safe(shown)
    assert "\n" not in shown
    assert len(shown) <= LONGEST_LINE
    assert max(map(len, shown.split(" "))) <= LONGEST_WORD
    assert visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer1/conv: 日本 é Ω 👩", "layer1/conv: 日本 é Ω 👩"),
        ("\x1b[31m\x07\x08\r\n\t\x7f\x9b\0", r"\x1b[31m\x07\x08\r\n\t\x7f\x9b\x00"),
        ("\u2028\u202e\u2066\u200b\ufeff", r"\u2028\u202e\u2066\u200b\ufeff"),
        ("\ud880\U000e0041", r"\ud880\U000e0041"),
        # Bytes of a file name (PEP 383): letters where they are UTF-8, else bytes.
        ("non\udcff\udcfeutf.onnx", r"non\xff\xfeutf.onnx"),
        ("\udcc3\udcbcn\udcc3\udcaf.onnx", "ünï.onnx"),
        ("\udcc3\udcc3\udcbc", r"\xc3ü"),
        ("a\udc80\udcc2", r"a\x80\xc2"),
        # What is made a letter by that is spelled as such a letter is: U+202E, U+0085.
        ("\udce2\udc80\udcae\udcc2\udc85", r"\u202e\x85"),
        ("a\u0301\u0316", "a\u0301\u0316"),
        ("a" + "\u0301" * 6, "a" + "\u0301" * 4 + r"\u0301\u0301"),
    ],
)
def test_what_cannot_be_seen_is_spelled(text, shown):
    assert visible(text) == shown


def test_a_long_name_keeps_both_ends_and_leaves_room_for_another():
    shown = visible(f"node {'a' * 5000}1 reads {'b' * 5000}2, which nothing writes")
    assert re.fullmatch(r"node a+…a+1 reads b+…b+2, which nothing writes", shown)
    assert len(shown) < 3 * LONGEST_WORD


@given(st.lists(anything, max_size=5))
def test_no_text_makes_a_line(parts):
    assert shown_lines(parts).count("\n") == max(len(parts) - 1, 0)
    assert shown_lines([shown_lines(parts)]) == shown_lines(parts)


def _check_markdown(text):
    written = for_markdown(text)
    assert_safe(written)
    expected = " ".join(visible(text).split())
    assert (shown_by_markdown(written) if written else "") == expected
    assert cells(f"| a | b |\n| --- | --- |\n| {written} | y |") == ["a", "b", expected, "y"]
    raw = re.sub(r"\\.|&(#8288|amp|lt|gt);", "", written)
    assert not set(raw) & set("\\`*_[]|$~#^<>&"), "markup that other readers know"
    item = [*("bullet_list_open", "list_item_open", "paragraph_open", "inline")]
    assert not written or blocks(f"- {written}")[:4] == item


@given(anything | names)
def test_markdown_shows_exactly_the_text(text):
    _check_markdown(text)


def test_markdown_shows_every_fragment():
    for fragment in FRAGMENTS:
        for text in (fragment, f"x{fragment}", f"{fragment} x", f"x {fragment}y"):
            _check_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        *("https://evil.example", "www.evil.example", "@everyone", "a@b.example"),
        *("#12", "GH-1", ":skull:"),
    ],
)
def test_markdown_makes_no_link_of_a_name(text):
    raw = for_markdown(f"see {text}")
    assert text not in raw
    assert not re.search(r"://|www\.|@\w|#\d|GH-\d|:\w+:", raw.replace("&#8288;", "\0"))


@given(anything | names)
def test_html_shows_exactly_the_text(text):
    read = elements(f'<p title="{for_html(text)}">{for_html(text)}</p>')
    assert read.built == [("p", "title")]
    assert read.text == visible(text)
    assert_safe(for_html(text))


documents = st.recursive(
    anything | names | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)


@given(documents)
def test_json_is_safe_and_exact(document):
    written = for_json(json.dumps(document, ensure_ascii=False))
    assert_safe(written)
    written.encode()
    assert json.loads(written) == document
    assert json.loads(for_json_in_ascii(written)) == document
    assert for_json_in_ascii(written).isascii()


@given(st.lists(anything | names, unique=True, max_size=6))
def test_texts_that_differ_are_shown_differently(texts):
    shown = visible_document({"all": texts, "keys": dict.fromkeys(texts, 1)})
    assert len(set(shown["all"])) == len(texts)
    assert list(shown["keys"]) == shown["all"]
    assert_safe(*shown["all"])


def test_names_that_look_alike_are_told_apart():
    shown = visible_document({"operators": {"a\x1b": 1, "a\\x1b": 2, "b": 3}})
    assert shown == {"operators": {"a\\x1b": 1, "a\\x1b (2)": 2, "b": 3}}


# --------------------------------------------------------------------------- errors


@given(names, names, names, names)
def test_an_error_has_four_lines_whatever_it_names(what, where, why, remedy):
    error = BnfoldError(what, where=where, why=why, remedy=remedy)
    assert_safe(str(error))
    assert [line[:8] for line in str(error).split("\n")[1:]] == [
        "  where:",
        "  why:  ",
        "  next: ",
    ]
    assert (error.what, error.where, error.why, error.remedy) == (what, where, why, remedy)


def _outside(model):
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="tame_file")


def _twice(model):
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def _cycle(model):
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


def _bytes(model):
    model.graph.initializer[0].raw_data += b"more"


BREAKS = {
    "missing": lambda model: model.graph.node[0].input.__setitem__(0, "tame_absent"),
    "twice": _twice,
    "cycle": _cycle,
    "domain": lambda model: model.opset_import.pop(),
    "bytes": _bytes,
    "output": lambda model: setattr(model.graph.output[0], "name", "tame_elsewhere"),
    "arity": lambda model: model.graph.node[1].input.pop(),
    "outside": _outside,
}


@pytest.mark.parametrize("kind", BREAKS)
@settings(max_examples=1)
@given(rename=renamings())
@example(rename=EVERY_FRAGMENT)
def test_errors_about_models_are_safe(kind, rename, tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "bad\x1b[31m\n\u202e.onnx"
    model = tame_model()
    BREAKS[kind](model)
    path.write_bytes(renamed(model, rename).SerializeToString())
    for done in (run("inspect", path), run("fold", path, "--dry-run")):
        assert_safe(done.out, done.err)
        assert done.code in ({0, 3} if kind == "arity" else {3})
        assert done.code == 0 or done.err.count("\n") == 4, done.err
        assert done.err.count("error:") == (done.code != 0)


@pytest.mark.parametrize("place", ["NodeProto.name", "GraphProto.name", "op_type", "key"])
def test_a_name_that_is_no_utf8_is_an_error(place, tmp_path):
    model = tame_model()
    match place:
        case "NodeProto.name":
            model.graph.node[0].name = "ZZZZ"
        case "GraphProto.name":
            model.graph.name = "ZZZZ"
        case "op_type":
            model.graph.node[2].op_type = "ZZZZ"
        case "key":
            model.metadata_props[0].key = "ZZZZ"
    path = tmp_path / "bytes.onnx"
    path.write_bytes(model.SerializeToString().replace(b"ZZZZ", b"\xff\xfeZZ"))
    done = run("inspect", path)
    assert done.code == 3
    assert "no UTF-8" in done.err
    assert place in done.err
    assert r"b'\xff\xfeZZ'" in done.err
    with pytest.raises(ModelError):
        bnfold.fold(path, verify=False)


HOSTILE_WORDS = ["\x1b[31m\x07x", "\n  next:  forged", "\u202ex", "\udc80\udcff", "[bold]x[/]"]


@pytest.mark.parametrize("word", HOSTILE_WORDS)
def test_words_of_the_user_are_safe_too(word, tmp_path):
    good = tmp_path / "good.onnx"
    onnx.save(tame_model(), good)
    calls = [
        ("inspect", tmp_path / word),
        ("fold", tmp_path / word, "-o", tmp_path / "out.onnx"),
        ("fold", good, "-o", tmp_path / word / "out.onnx", "--no-verify"),
        ("fold", good, "-o", tmp_path / "out.onnx", "--require", word),
        ("fold", good, "--dry-run", "--shape", word),
        ("fold", good, "--dry-run", "--report", tmp_path / word / "page.html"),
        ("verify", tmp_path / word, good),
        ("verify", good, good, "--certificate", tmp_path / word),
        ("verify", good, good, "--inputs", word),
        ("verify", good, good, "--level", word),
        ("bench", tmp_path / word),
        ("bench", good, "--arms", word),
        ("bench", good, "--batch", word),
        (word,),
        ("fold", good, f"--{word}"),
    ]
    for call in calls:
        done = run(*call)
        assert done.code in {2, 3, 4}, (call, done)
        assert_safe(done.out, done.err)
        assert "Traceback" not in done.err
        assert done.err.lower().count("error:") == 1, (call, done.err)
        assert "\n  next:  forged" not in done.err


@pytest.mark.thorough
@pytest.mark.parametrize("word", HOSTILE_WORDS)
def test_words_of_an_export_are_safe_too(word, tmp_path):
    pytest.importorskip("torch")
    for target in (word, f"{word}:{word}", f"os:{word}", "os:getcwd"):
        done = run("export", target, "-o", tmp_path / word)
        assert done.code in {2, 3}, (target, done)
        assert_safe(done.out, done.err)
        assert done.err.lower().count("error:") == 1, done.err


def test_a_traceback_is_safe(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("\x1b[31m\n\u202e")

    monkeypatch.setattr("bnfold.model.io.load", fail)
    monkeypatch.setenv("BNFOLD_DEBUG", "1")
    done = run("inspect", tmp_path / "any\x07.onnx")
    assert done.code == 3
    assert "Traceback" in done.err
    assert_safe(done.err)


# --------------------------------------------------------------------------- commands


@cache
def _tame_faces(folder: Path, *, unknown: bool) -> tuple[str, str, dict]:
    return _faces(tame_model(unknown=unknown), folder / "tame.onnx")[:3]


def _faces(model: onnx.ModelProto, path: Path) -> tuple[str, str, dict, list[str]]:
    """Page, Markdown and JSON of a fold, and all that was printed."""
    path.write_bytes(model.SerializeToString())
    page, markdown = path.parent / "page.html", path.parent / "page.md"
    told = run(
        *("fold", path, "-o", path.parent / "out.onnx", "--no-verify", "--json"),
        *("--report", page, "--markdown", markdown),
    )
    looked, counted = run("inspect", path), run("inspect", path, "--json")
    dashed = run("fold", path, "--dry-run", "--markdown", "-")
    assert [one.code for one in (told, looked, counted, dashed)] == [0, 0, 0, 0], told
    printed = [one for each in (told, looked, counted, dashed) for one in (each.out, each.err)]
    texts = page.read_text("utf-8"), markdown.read_text("utf-8")
    assert json.loads(told.out)["folded"] == json.loads(counted.out)["folded"]
    assert blocks(dashed.out) == blocks(texts[1])
    return *texts, json.loads(told.out), printed


def _check_faces(model, rename, name, folder):
    tame_page, tame_markdown, tame_json = _tame_faces(
        folder, unknown=len(model.graph.node) > 5
    )
    path = folder / name
    page, markdown, document, printed = _faces(renamed(model, rename), path)
    assert_safe(page, markdown, *printed)
    built_alike(page, tame_page)
    assert blocks(markdown) == blocks(tame_markdown)
    alone = set(texts_of(model)) & all_texts(tame_json)
    assert len(alone) > 5
    assert {rename(one) if one.startswith("tame") else one for one in alone} <= all_texts(
        document
    )
    assert str(path) in all_texts(document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@settings(max_examples=3)
@given(unknown=st.booleans(), rename=renamings(), name=names)
@example(unknown=False, rename=FEW_TO_A_NAME[0], name="x")
@example(unknown=True, rename=FEW_TO_A_NAME[1], name="\x1b]0;y\x07")
@example(unknown=True, rename=FEW_TO_A_NAME[2], name="<b>|`*\n# y")
@example(unknown=False, rename=FEW_TO_A_NAME[3], name="\udcff\u202e")
def test_no_name_breaks_a_face_of_a_fold(unknown, rename, name, folder):
    file = f"{name.replace('/', '').replace(chr(0), '')[:40]}.onnx"
    _check_faces(tame_model(unknown=unknown), rename, file, folder)


@pytest.mark.thorough
@settings(max_examples=400)
@given(unknown=st.booleans(), rename=renamings(), name=names)
def test_no_name_breaks_a_face_of_a_fold_at_length(unknown, rename, name, folder):
    file = f"{name.replace('/', '').replace(chr(0), '')[:40]}.onnx"
    _check_faces(tame_model(unknown=unknown), rename, file, folder)


def test_a_whole_check_is_safe_and_exact(tmp_path, capfd):
    """Run by ONNX Runtime, proved by certificate: what it says goes to every face."""
    model = renamed(tame_model(unknown=True), EVERY_FRAGMENT)
    path, folded = tmp_path / "a\x1b[31m\n|<b>.onnx", tmp_path / "b\u202e$.onnx"
    certificate = tmp_path / "c\x07.json"
    page, markdown = tmp_path / "p.html", tmp_path / "p.md"
    onnx.save(model, path)
    faces = ("--json", "--report", page, "--markdown", markdown)
    done = [run("fold", path, "-o", folded, "--certificate", certificate, *faces)]
    read = [page.read_text("utf-8"), markdown.read_text("utf-8")]
    done.append(run("verify", path, folded, "--certificate", certificate, "--run", *faces))
    read += [page.read_text("utf-8"), markdown.read_text("utf-8")]
    assert [one.code for one in done] == [0, 0], done
    assert_safe(*read, *(text for one in done for text in (one.out, one.err)))
    elements(read[0])
    elements(read[2])
    document = json.loads(done[1].out)
    assert (document["original"], document["folded"]) == (str(path), str(folded))
    assert_safe(certificate.read_text("utf-8"))
    told = all_texts(json.loads(certificate.read_text("utf-8")))
    assert EVERY_FRAGMENT("tame_BatchNormalization_tame_n") in told
    written = set(texts_of(onnx.load(folded)))
    kept = {one for one in texts_of(model) if one.startswith(EVERY_FRAGMENT("tame_domain"))}
    assert kept <= written
    assert capfd.readouterr() == ("", ""), "libraries write past Python"


def test_what_the_runtime_says_is_one_safe_line(tmp_path):
    model = renamed(tame_model(unknown=True), EVERY_FRAGMENT)
    onnx.save(model, tmp_path / "m.onnx")
    done = run("bench", tmp_path / "m.onnx", "--max-time", "1", "--no-details")
    assert done.code in {0, 3}
    assert "is not a registered function/op" in done.err
    assert_safe(done.out, done.err)


@pytest.mark.thorough
def test_a_benchmark_is_safe(tmp_path, capfd):
    onnx.save(renamed(tame_model(), EVERY_FRAGMENT), tmp_path / "m\x1b[31m\n.onnx")
    page, markdown = tmp_path / "p.html", tmp_path / "p.md"
    faces = ("--json", "--report", page, "--markdown", markdown)
    done = run("bench", tmp_path / "m\x1b[31m\n.onnx", "--max-time", "6", *faces)
    assert done.code == 0, done
    assert_safe(done.out, done.err, page.read_text("utf-8"), markdown.read_text("utf-8"))
    elements(page.read_text("utf-8"))
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------- documents


def _bench_document(report):
    folded = made.fold_report()
    drawn = made.pictures(folded)[:1]
    return bench_document(replace(report, fold=folded, pictures=drawn), "bnfold bench x")


DOCUMENTS = {
    "verify": lambda: verify_document(made.failed_check(), "a.onnx", "b.onnx"),
    "verify_passed": lambda: verify_document(made.passed_check(), "a.onnx", "b.onnx"),
    "export": lambda: export_document(made_export(), (), "module:net", "a.onnx"),
    "bench": lambda: _bench_document(made.empty_report()),
    "bench_plots": lambda: _bench_document(made.single_process_report()),
}
OURS = {"schema", "bnfold", "python", "date", "move", "verdict", "code", "charge", "role"} | {
    *("ending", "level", "rule", "host", "started"),
}
"""Keys of text that is not from a model, a library or a user: words of a fixed set."""


def made_export():
    from bnfold.records import ExportReport, Port

    ports = (Port("input", "FLOAT", ("batch", 3, None)), Port("output", "FLOAT", (1,)))
    return ExportReport(
        *("Net", "dynamo", "2.0", 17, ports[:1], ports[1:], made.fold_report()),
        *(made.passed_check(), made.failed_check(), ("a warning",)),
    )


def with_names(entry, rename, key=""):
    """The document with every text renamed that is not ours; keys of counts too."""
    if isinstance(entry, dict):
        counts = (
            key in {"before", "after", "node_time_ms", "failures"} and "boxes" not in entry
        )
        return {
            rename(one) if counts else one: with_names(value, rename, "" if counts else one)
            for one, value in entry.items()
        }
    if isinstance(entry, list):
        return [with_names(one, rename, key) for one in entry]
    is_ours = key in OURS or entry in {"", "inf", "-inf", "nan"}
    return rename(entry) if isinstance(entry, str) and not is_ours else entry


def _shown_documents(name, rename):
    named = with_names(DOCUMENTS[name](), lambda tame: rename(tame).replace("; ", ";"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return to_html(named), to_markdown(named), to_json(named), named


@cache
def _tame_document(name):
    return _shown_documents(name, all_different(["Tame"]))


def _check_document(name, rename):
    page, markdown, written, document = _shown_documents(name, rename)
    tame_page, tame_markdown, _, _ = _tame_document(name)
    assert_safe(page, markdown, written)
    assert json.loads(written) == document
    built_alike(page, tame_page, in_order=False)
    assert blocks(markdown) == blocks(tame_markdown)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_text_breaks_a_document(name):
    _check_document(name, EVERY_FRAGMENT)


@pytest.mark.thorough
@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=60)
@given(rename=renamings())
def test_no_text_breaks_a_document_at_length(name, rename):
    _check_document(name, rename)


def test_a_template_cannot_put_in_a_name_raw():
    template = _environment().from_string('<p title="{{ name }}">{{ name }}{{ mark }}</p>')
    said = template.render(name='\x1b[31m\u202e<b>"', mark=Markup("<i>1</i>"))
    name = r"\x1b[31m\u202e&lt;b&gt;&#34;"
    assert said == f'<p title="{name}">{name}<i>1</i></p>'


# --------------------------------------------------------------------------- plots


@pytest.mark.parametrize(
    "label", ["$\\frac{1}{0}$", "中文 👩", "a\x1b\x00\ufffe\nb", ' id="x" url(#y)', "#010201"]
)
def test_a_label_is_drawn_as_it_is_and_without_warning(label):
    def draw(figure):
        axes = figure.add_subplot()
        axes.set_title(visible(label))
        axes.plot([0, 1], label=visible(label))
        axes.legend()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = canvas.drawn(2.0, label, "key", draw)
    assert_safe(svg)
    read = elements(svg.replace('class="plot" ', ""))
    assert read.text.count(visible(label)) == 2
    assert html.escape(visible(label)) in svg


def test_a_users_settings_of_matplotlib_do_not_reach_a_page():
    import matplotlib

    def draw(figure):
        figure.add_subplot().set_title("$x$")

    usual = canvas.drawn(2.0, "x", "key", draw)
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9, "font.size": 40}):
        assert canvas.drawn(2.0, "x", "key", draw) == usual


# --------------------------------------------------------------------------- the terminal


def test_colours_are_all_that_a_terminal_gets(tmp_path, monkeypatch):
    path = tmp_path / "m\x1b[31m.onnx"
    onnx.save(renamed(tame_model(), all_different(["[bold red]x[/]\x1b[31m"])), path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    done = run("inspect", path)
    assert SGR.search(done.out), "no colour: nothing is tested"
    assert_safe(SGR.sub("", done.out), done.err)
    assert r"[bold red]x[/]\x1b[31m" in done.out


@pytest.mark.parametrize("which", ["progress", "bar"])
def test_what_is_being_done_is_shown_safely(which, monkeypatch):
    from bnfold.report import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    said = "\x1b]0;x\x07[bold]y[/bold]\x9b\u202e\r\n"
    with getattr(progress, which)() as tell:
        tell(said) if which == "progress" else tell(said, 0.5)
        if which == "progress":
            import time

            time.sleep(0.2)
    ours = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", shown.getvalue())
    assert_safe(ours)
    assert "[bold]y[/bold]" in ours


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_without_the_letters_gets_exact_json(encoding, tmp_path, monkeypatch):
    path = tmp_path / "日本é\x1b\udcff.onnx"
    onnx.save(renamed(tame_model(), EVERY_FRAGMENT), path)
    for arguments in (("fold", path, "--dry-run", "--json"), ("inspect", path)):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in "12"]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", streams[0])
            patched.setattr(sys, "stderr", streams[1])
            patched.setattr(sys, "argv", ["bnfold", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 0
        for stream in streams:
            stream.flush()
        # click takes ASCII for a mistake of the system's settings, and writes UTF-8.
        usual = "utf-8" if encoding == "ascii" else encoding
        out, err = (stream.buffer.getvalue().decode(usual) for stream in streams)
        assert_safe(out, err)
        if "--json" in arguments:
            assert json.loads(out)["model"] == str(path)


# --------------------------------------------------------------------------- libraries


def _extreme(dtype: int) -> onnx.ModelProto:
    """Numbers at the ends of a type: what is computed of them overflows."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    top = float(np.finfo(kind).max)
    weights = {
        "top": np.array(top, kind),
        "w": np.full((4, 3, 1, 1), top / 4).astype(kind),
        "s": np.array([top, -top, 1e-30, 2], np.float64).astype(kind),
        "b": np.array([top, 1, 0, -top], np.float64).astype(kind),
        "m": np.array([-top, top, 0, 1], np.float64).astype(kind),
        "v": np.array([1, 0, top, 1e-30], np.float64).astype(kind),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "top"], ["d"], name="mul"),
        helper.make_node("Mul", ["d", "top"], ["e"], name="again"),
        helper.make_node("BatchNormalization", ["e", *"sbmv"], ["y"], name="bn"),
    ]
    ports = [
        [helper.make_tensor_value_info(name, dtype, [1, size, 4, 4])]
        for name, size in (("x", 3), ("y", 4))
    ]
    stored = [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "extreme", *ports, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16])
def test_no_library_warns_of_numbers(dtype, tmp_path, capfd):
    """Warnings are errors here, also inside of the command; what C writes is caught too."""
    onnx.save(_extreme(dtype), tmp_path / "m.onnx")
    done = run("fold", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--json")
    assert "does not know how to handle" not in done.err
    assert "Warning" not in done.err + done.out
    bnfold.fold(_extreme(dtype), verify=False).to_proto()
    assert capfd.readouterr() == ("", "")


def test_a_double_that_float32_cannot_hold_is_no_warning():
    from onnx_ir import DataType

    from bnfold.evidence.noise import widen_inputs

    found = widen_inputs({"x": np.array([1e300, 1.0])}, frozenset({DataType.DOUBLE}))
    assert found["x"].tolist() == [np.inf, 1.0]


_LOUD = """
import logging, warnings
from bnfold.cli.terminal import prepare
prepare()
warnings.warn("overflow", RuntimeWarning)
logging.getLogger("matplotlib").warning("a cache is built")
"""


@pytest.mark.parametrize(("asked", "expected"), [((), 0), (("-W", "default"), 1)])
def test_no_library_reaches_the_user_who_did_not_ask(asked, expected):
    """In a process with Python's own filters: here, under pytest, warnings are errors."""
    environment = {key: one for key, one in os.environ.items() if key != "PYTHONWARNINGS"}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    command = [sys.executable, *asked, "-c", _LOUD]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr.count("RuntimeWarning: overflow") == expected
    assert "cache" not in done.stderr
    assert expected or done.stderr == ""


def test_every_command_begins_by_silencing_libraries(monkeypatch):
    called = []
    monkeypatch.setattr("bnfold.cli.main.prepare", lambda: called.append(1))
    run("--help")
    assert called == [1]


# --------------------------------------------------------------------------- who prints

PRINTERS = {
    "click.echo": {"cli/terminal.py"},
    "click.secho": set(),
    "click.prompt": set(),
    "print": set(),
    "rich.text.Text": {"report/console.py"},
    "rich.console.Console": {"report/console.py"},
    "rich.print": set(),
    "markupsafe.Markup": {"report/drawing.py"},
    "sys.stdout.write": set(),
    "sys.stderr.write": {"runtime/telling.py"},  # of a child: its parent makes it one line
    "warnings.warn": set(),
}
"""What shows text, and the files that may: each makes it safe first."""


def _uses(tree: ast.Module) -> set[str]:
    """Full names of what a file imports or calls."""
    found: dict[str, str] = {}
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = {one.id for one in called if isinstance(one, ast.Name)}
    dotted = {ast.unparse(one) for one in called if isinstance(one, ast.Attribute)}
    return set(found.values()) | {found.get(one, one) for one in names} | dotted


def test_text_is_shown_by_these_files_alone():
    found = {name: set() for name in PRINTERS}
    words = re.compile("|".join({name.rpartition(".")[2] for name in PRINTERS}))
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text("utf-8")
        uses = _uses(ast.parse(text)) if words.search(text) else set()
        for name in PRINTERS.keys() & uses:
            found[name].add(file.relative_to(PACKAGE).as_posix())
    assert found == PRINTERS
