"""The pages in a real browser, with the network off: no errors, quizzes answer, figures turn, search finds."""

import io
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from test_sources import CONTENTS, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
NOTEBOOKS = [name for name in CONTENTS if name.startswith("notebooks/")]
CHAPTERS = [name for name in NOTEBOOKS if name.removeprefix("notebooks/")[0].isdigit()]
SOURCES = {name: (ROOT / f"{name}.ipynb").read_text(encoding="utf-8") for name in NOTEBOOKS}
WITH_MATHEMATICS = [name for name in NOTEBOOKS if "$" in SOURCES[name]]
WITH_INTERACTIVE = [name for name in CHAPTERS if "interactive(" in SOURCES[name]]
assert "notebooks/01_representations" in WITH_MATHEMATICS
assert "notebooks/01_representations" in WITH_INTERACTIVE
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",  # three-dimensional figures need WebGL, here without a graphics card
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the network is off
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(html):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser, address):
    """A function that opens a page at some width in some theme and waits until mathematics is set."""

    def open_page(name, width=1280, theme="light", query=""):
        browser.set_window_size(width, 1000)
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page = f"{address}/{name}.html{query}"
        browser.get(page)
        browser.execute_script("localStorage.setItem('mode', arguments[0])", theme)
        browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        browser.get_log("browser")
        browser.get(page)
        wait(browser, "return !window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        return browser

    return open_page


def wait(browser, script, *arguments, seconds=30):
    return WebDriverWait(browser, seconds).until(lambda b: b.execute_script(script, *arguments), script)


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def see(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    return element


def drawn_figures(browser):
    for figure in all_of(browser, ".interactive"):
        see(browser, figure)
        wait(browser, "return arguments[0].classList.contains('drawn')", figure)
    time.sleep(0.5)  # WebGL paints in the next frames
    return all_of(browser, ".interactive")


# --- every page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTENTS)
def test_a_page_has_no_error_and_asks_no_foreign_host(visit, address, name):
    browser = visit(name)
    drawn_figures(browser)
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize("name", CONTENTS)
def test_a_page_fits_a_phone(visit, name):
    browser = visit(name, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    too_wide = "const a = document.querySelector('article.bd-article'); return a ? a.scrollWidth - a.clientWidth : 0"
    assert browser.execute_script(too_wide) <= 0, "the article as a whole must not scroll sideways either"


# --- chapters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_MATHEMATICS)
def test_mathematics_is_set(visit, name):
    browser = visit(name)
    formulas = all_of(browser, "article .math")
    assert formulas
    assert len(all_of(browser, "article .math mjx-container svg")) >= len(formulas)
    assert all_of(browser, "article [data-mml-node='merror']") == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_answer_of_every_quiz_gives_its_feedback_by_pointer_and_by_key(visit, name):
    browser = visit(name)
    quizzes = all_of(browser, ".quiz")
    assert quizzes
    for quiz in quizzes:
        answers = quiz.find_elements(By.TAG_NAME, "details")
        assert len(answers) >= 2
        for number, answer in enumerate(answers):
            choice = see(browser, answer.find_element(By.TAG_NAME, "summary"))
            choice.send_keys(Keys.ENTER) if number % 2 else choice.click()
            feedback = answer.find_element(By.TAG_NAME, "p")
            assert feedback.is_displayed()
            verdict = "Right." if "right" in answer.get_attribute("class") else "Not quite."
            assert feedback.text.startswith(verdict)
            assert len(feedback.text) > len(verdict) + 5, "feedback must say why"
        opened = [answer for answer in answers if answer.get_attribute("open")]
        assert len(opened) == 1, "a new answer must close the one before"


@pytest.mark.parametrize("name", WITH_INTERACTIVE)
def test_interactive_figures_are_drawn_and_turn(visit, name):
    browser = visit(name)
    figures = drawn_figures(browser)
    assert figures
    for figure in figures:
        see(browser, figure)
        picture = np.asarray(Image.open(io.BytesIO(figure.screenshot_as_png)).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 30, "nothing is drawn"
    turned = all_of(browser, ".interactive:has(.gl-container canvas)")
    assert turned, "no figure has three dimensions"
    eye = "return arguments[0]._fullLayout.scene._scene.getCamera().eye.x"
    before = browser.execute_script(eye, see(browser, turned[0]))
    # A quarter of the width left of the centre: where two scenes stand side by side, the first one.
    aside = -turned[0].size["width"] // 4
    drag = webdriver.ActionChains(browser).move_to_element_with_offset(turned[0], aside, 0).click_and_hold()
    drag.move_by_offset(80, 10).move_by_offset(40, 10).release().perform()
    assert browser.execute_script(eye, turned[0]) != before


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_have_no_card_behind_them_in_the_dark(visit, name):
    browser = visit(name, theme="dark")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    pictures = all_of(browser, "div.cell_output img, div.cell_output div.text_html:has(.interactive)")
    assert pictures
    style = "const s = getComputedStyle(arguments[0]); return [s.backgroundColor, s.filter]"
    for picture in pictures:
        assert browser.execute_script(style, picture) == ["rgba(0, 0, 0, 0)", "none"]


@pytest.mark.parametrize("name", WITH_INTERACTIVE)
def test_interactive_figures_change_colours_with_the_theme(visit, name):
    browser = visit(name, theme="dark")
    figure = drawn_figures(browser)[0]
    colour = "return arguments[0]._fullLayout.font.color"
    dark = browser.execute_script(colour, figure)
    browser.execute_script("document.documentElement.dataset.theme = 'light'")
    wait(browser, "return arguments[0]._fullLayout.font.color !== arguments[1]", figure, dark)
    assert browser.execute_script(colour, figure) != dark


@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_are_hidden_until_asked_for(visit, name):
    browser = visit(name)
    solutions = all_of(browser, "div.solution.dropdown")
    assert solutions
    for solution in solutions:
        body = solution.find_elements(By.CSS_SELECTOR, "section > *")
        assert body
        assert not any(part.is_displayed() for part in body)
        see(browser, solution.find_element(By.CSS_SELECTOR, ".admonition-title")).click()
        WebDriverWait(browser, 5).until(lambda _, body=body: all(part.is_displayed() for part in body))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_can_be_copied(visit, name):
    browser = visit(name)
    assert len(all_of(browser, "div.cell_input button.copybtn")) == len(all_of(browser, "div.cell_input"))


def test_search_finds_a_word_of_the_first_chapter(visit):
    browser = visit("search", query="?q=representation")
    wait(browser, "return document.querySelectorAll('#search-results li a').length > 0")
    found = [link.get_attribute("href") for link in all_of(browser, "#search-results li a")]
    assert any(f"/{CHAPTERS[0]}.html" in link for link in found), found
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
