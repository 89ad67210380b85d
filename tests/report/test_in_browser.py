"""The pages in a real browser: two sizes, light and dark, no complaint, no overflow."""

from __future__ import annotations

import pytest

from tests.report.browser import find, opened
from tests.report.test_pages import DOCUMENTS, page

pytestmark = pytest.mark.skipif(
    find() is None, reason="no chromium, chromium-browser or google-chrome on the path"
)
SIZES = ((1280, 900), (390, 844))
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_is_shown_without_complaint_and_fits(name, browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(name))
    for width, height in SIZES:
        for scheme, paper in PAPER.items():
            seen = browser.show(file, width, height, scheme)
            assert seen.complaints == []
            assert seen.overflowing == []
            assert seen.paper == paper


@pytest.mark.parametrize("name", ["bench_cuda", "fold_passed"])
def test_everything_opened_still_fits_and_can_be_read(name, browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(name).replace("<details>", "<details open>"))
    assert browser.show(file, 360, 780).overflowing == []
    smallest = browser.run(
        "Math.min(...[...document.querySelectorAll('.plot text')].map("
        "one => parseFloat(getComputedStyle(one).fontSize)"
        " * Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b)))"
    )
    assert smallest >= 8.5


def test_colours_of_plots_exist_on_the_page(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page("bench_cuda"))
    browser.show(file, 1280, 900)
    missing = browser.run(
        "[...new Set(document.documentElement.outerHTML.match(/var\\(--[\\w-]+\\)/g))].filter("
        "one => !getComputedStyle(document.body).getPropertyValue(one.slice(4, -1)))"
    )
    assert missing == []


def test_print_is_white_and_opens_details(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page("bench_cpu"))
    seen = browser.show(file, 800, 1100, "dark", media="print")
    assert seen.paper == PAPER["light"]
    height = browser.run(
        "document.querySelector('details table').getBoundingClientRect().height"
    )
    assert height > 100


def test_what_gets_into_a_page_does_not_run(browser, tmp_path):
    script = "<script>document.title = 'ran'</script><p id='styled' style='color: red'>x</p>"
    browser.show(_spoiled(tmp_path, script), 390, 844)
    assert browser.run("document.title") != "ran"
    red = "getComputedStyle(document.getElementById('styled')).color"
    assert browser.run(red) != "rgb(255, 0, 0)"


def _spoiled(tmp_path, addition):
    file = tmp_path / "spoiled.html"
    file.write_text(page("verify_passed").replace("</main>", f"{addition}</main>"))
    return file


@pytest.mark.parametrize(
    "addition",
    [
        "<script>console.error('broken')</script>",
        "<script>undefined_function()</script>",
        '<img src="missing.png" alt="">',
        '<link rel="stylesheet" href="https://example.invalid/style.css">',
    ],
)
def test_a_page_that_complains_is_caught(addition, browser, tmp_path):
    assert browser.show(_spoiled(tmp_path, addition), 390, 844).complaints


def test_a_page_that_overflows_is_caught(browser, tmp_path):
    wide = '<svg class="wide" width="1000" height="9"></svg>'
    assert "svg.wide" in browser.show(_spoiled(tmp_path, wide), 390, 844).overflowing
    assert browser.show(_spoiled(tmp_path, wide), 1280, 900).overflowing == []
