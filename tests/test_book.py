"""The built pages are complete: contents, links, images, words for images, and nothing from foreign hosts."""

import re
from copy import copy
from functools import cache
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from conftest import ROOT
from test_sources import CONTENTS

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
NOTEBOOKS = [name for name in CONTENTS if name.startswith("notebooks/")]
CHAPTERS = [name for name in NOTEBOOKS if name.removeprefix("notebooks/")[0].isdigit()]


@cache
def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="session")
def pages(html):
    """Parsed pages by path, of every page that was written."""
    found = {path: soup(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts}
    assert found
    return found


@pytest.fixture(scope="session")
def articles(html):
    """What there is to read on each page of the contents, by name."""
    return {name: soup(html / f"{name}.html").find("article") for name in CONTENTS}


def local_target(page, address, html):
    """File that an address on a page leads to; None for other hosts and for other schemes."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not parts.path:
        return None
    target = (page.parent / unquote(parts.path)).resolve()
    assert target.is_relative_to(html.resolve()), f"{page.name}: {address} leads out of the book"
    return target


def test_every_page_of_the_contents_is_built(html):
    missing = [name for name in CONTENTS if not (html / f"{name}.html").is_file()]
    assert missing == []


def test_the_first_page_leads_to_the_introduction(html):
    assert "book/intro.html" in (html / "index.html").read_text(encoding="utf-8")


def test_every_page_is_reached_from_the_side_bar(html, pages):
    links = [a.get("href", "") for a in pages[html / f"{CONTENTS[0]}.html"].select("nav.bd-links a")]
    for name in CONTENTS:
        assert any(link == "#" or link.endswith(f"{name.rsplit('/', 1)[1]}.html") for link in links), name


def test_no_link_is_broken(html, pages):
    broken = []
    for path, page in pages.items():
        for a in page.find_all("a", href=True):
            target = local_target(path, a["href"], html)
            anchor = unquote(urlsplit(a["href"]).fragment)
            if target is None and (urlsplit(a["href"]).scheme or urlsplit(a["href"]).netloc):
                continue
            target = target or path
            if not target.is_file():
                broken.append(f"{path.name}: {a['href']}: no such file")
            elif anchor and target.suffix == ".html" and not soup(target).find(id=anchor):
                broken.append(f"{path.name}: {a['href']}: no such place in the page")
    assert broken == []


def test_nothing_that_a_page_loads_is_missing_or_foreign(html, pages):
    wrong = []
    for path, page in pages.items():
        loaded = [tag["src"] for tag in page.find_all(src=True)]
        loaded += [tag["href"] for tag in page.find_all("link", href=True) if "stylesheet" in tag["rel"]]
        loaded += [tag["href"] for tag in page.find_all("link", href=True) if "icon" in tag["rel"]]
        for address in filter(lambda a: not a.startswith("data:"), loaded):
            target = local_target(path, address, html)
            if target is None or not target.is_file():
                wrong.append(f"{path.name}: {address}")
    assert wrong == []


def test_no_style_sheet_fetches_from_a_foreign_host(html):
    sheets = list(html.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        fetched = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+", sheet.read_text(encoding="utf-8"))
        assert fetched == [], sheet.name


def test_every_image_has_words_for_those_who_cannot_see_it(articles):
    images = [(name, image) for name, article in articles.items() for image in article.find_all("img")]
    assert any(name in CHAPTERS for name, _ in images), "no chapter has a figure"
    bare = [
        f"{name}: {image['src']}"
        for name, image in images
        if len(image.get("alt", "").split()) < 4 or image["alt"].endswith((".png", ".svg", ".jpg"))
    ]
    assert bare == []


def test_every_interactive_figure_has_words_too(articles):
    figures = [(name, f) for name, article in articles.items() for f in article.select(".interactive")]
    assert figures, "no page has an interactive figure"
    assert [name for name, figure in figures if len(figure["aria-label"].split()) < 4] == []


def test_every_figure_of_a_notebook_has_a_number_and_a_caption(articles):
    for name in NOTEBOOKS:
        number = r"\d+\.\d+" if name in CHAPTERS else r"\d+"
        drawn = articles[name].select("div.cell_output img, div.cell_output .interactive")
        assert drawn
        for figure in (image.find_parent("figure") for image in drawn):
            assert figure is not None, f"{name}: a figure without a caption"
            assert re.match(rf"Fig\. {number} \S+", figure.figcaption.get_text().strip()), figure.figcaption


def test_every_number_that_a_notebook_reads_is_shown(builder, articles):
    for name in NOTEBOOKS:
        cells = nbformat.read(ROOT / f"{name}.ipynb", 4).cells
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        prose += [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for cell in cells]
        read = sum(len(builder.GLUE.findall(text)) for text in prose)
        assert read
        assert len(articles[name].select(".pasted-text")) == read


def test_no_markup_is_left_in_the_text(articles):
    for name, shown in articles.items():
        article = copy(shown)
        for code in article.select("pre, code, script"):
            code.extract()
        left = re.findall(r"\{\w+[:\w]*\}`[^`]*`?|^:::.*|\{(?:glue|cite|doc|ref)\b.{0,40}", article.get_text(), re.M)
        assert left == [], name


def test_chapters_have_the_whole_skeleton(articles):
    for name in CHAPTERS:
        article = articles[name]
        for what in (".learn", ".predict", ".claim, .claims", ".exercise", ".solution", ".quiz", "dl.stamp"):
            assert article.select(what), f"{name} has no {what}"
        assert len(article.select("div.exercise")) >= 3
        headings = " ".join(h.get_text() for h in article.find_all("h2"))
        assert "Wrap-up" in headings
        assert "Further reading" in headings


def test_launch_buttons_open_this_notebook_in_this_repository(html, pages):
    address, branch = CONFIG["repository"]["url"], CONFIG["repository"]["branch"]
    repository = address.removeprefix("https://github.com/")
    for name in NOTEBOOKS:
        links = {a["href"] for a in pages[html / f"{name}.html"].find_all("a", href=True)}
        assert f"https://colab.research.google.com/github/{repository}/blob/{branch}/{name}.ipynb" in links
        assert f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{name}.ipynb" in links
        assert (ROOT / f"{name}.ipynb").is_file()


def test_the_page_of_execution_times_lists_every_notebook(articles):
    rows = articles["book/execution_times"].select("tbody tr")
    assert len(rows) == len(NOTEBOOKS)
    for row in rows:
        _, _, minutes, *_ = (cell.get_text() for cell in row.find_all("td"))
        assert float(minutes) >= 0
