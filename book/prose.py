"""What a chapter's prose may say: no number that is typed in, and no verdict that the ledger of claims contradicts."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat

from convergent import claims_ledger
from convergent.results import read_records

GLUE = re.compile(r"\{glue:text\}`([^`:]+)(?::([^`]*))?`")
_NOT_PROSE = [
    r"(?ms)^(`{3,}|~{3,})(?!\{)[^\n]*\n.*?^\1",  # code blocks; a directive's body is prose
    r"(?s)\$\$.*?\$\$|\\begin\{.*?\\end\{\w+\*?\}",
    r"(?m)^\s*(?:`{3,}|:{3,})\{[^\n]*$",  # a directive's first line ...
    r"(?m)^\s*:[\w-]+:.*$",  # ... and its options
    r"(?m)^\s*#+ .*$|^\s*\|[\s:|-]+\|\s*$",  # headings; rules of tables
    r"(?s)<!--.*?-->|</?\w[^>]*>",
    r"\{(?!cite)[\w:.-]+\}`[^`]*`|(?<!\})`[^`]+`",  # roles (but citations, which excuse a number) and code
    r"(?<![\\\w$])\$[^$\n]+\$",
    r"\]\([^)]*\)|https?://\S+",
    r"(?i)\b(?:sections?|sec\.|chapters?|figures?|figs?\.|tables?|eqs?\.|equations?|exercises?|arxiv:?|version|python"
    r"|torch|CC BY)\s*\d[\d.]*\w?(?:(?:\s*(?:,|and|to|–|-)\s*)\d[\d.]*)*",  # numbers that name something
    r"95\s?%(?=[\s\w-]{0,20}\b(?:interval|confidence|band))",
]
_PREDICT = r"(?ms)^(`{3,}|:{3,})\{admonition\}[^\n]*\n:class:[^\n]*\bpredict\b.*?^\1"
_MEASURED = re.compile(
    r"(?<![\w.])[-−±]?\d+(?:[.,]\d+)?\s?(?:%|percent|per cent|times|fold|-fold|×(?!\s?\d))(?!\w)|(?<![\w.])\d+\.\d+"
)


def unrecorded_numbers(notebook) -> list[tuple[int, str]]:
    """Numbers in a notebook's prose that look measured and are typed in, as (cell number from 1, where).

    A measured number comes from `record` by way of ``{glue:text}`name:.2f` ``; typed in, it would go stale.
    Looked for are decimals ("0.83"), percentages ("83 %", "12 per cent") and factors ("12 times", "3-fold"), in
    Markdown cells and in the captions and alt texts of figures. Free to be typed in are other integers ("10
    shapes"), and any number in code spans, code blocks, mathematics, links, headings, options of directives,
    after a word that makes it a name ("section 2.1", "Fig. 1.2", "Python 3.11"), in "95 % interval", in a box
    of class `predict` (guesses), and in a sentence or table cell that cites a work (that work's number).
    """
    found = []
    for number, cell in enumerate(notebook["cells"], 1):
        mystnb = cell["metadata"].get("mystnb", {})
        texts = [mystnb.get("figure", {}).get("caption", ""), mystnb.get("image", {}).get("alt", "")]
        if cell["cell_type"] == "markdown":
            texts = ["".join(cell["source"])]
        for text in texts:
            text = re.sub(_PREDICT, " ", text)
            for pattern in _NOT_PROSE:
                text = re.sub(pattern, " ", text)
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n|(?<!\\)\|", text):
                measured = _MEASURED.search(sentence)
                if measured and "{cite" not in sentence:
                    found.append((number, f"{measured[0].strip()!r} in {' '.join(sentence.split())!r:.100}"))
    return found


def missing_records(notebook) -> list[str]:
    """Names that an executed notebook's prose, captions or alt texts read and that none of its cells recorded."""
    records = read_records(notebook)
    names = [name for name, _ in GLUE.findall(json.dumps(notebook["cells"]))]
    return [name for name in dict.fromkeys(names) if "::" not in name and name not in records]


# --- verdicts --------------------------------------------------------------------------------------

# A sentence that says in its own words how a claim came out has a mark behind it, which the reader does not see:
# <!-- verdict: reproduced (depth_families_linear, depth_families_gains) -->
_MARK = re.compile(r"<!--\s*verdict:\s*(reproduced|partly|not reproduced)\s*\(([\w\s,]+)\)\s*-->")
_VERDICT = re.compile(r"\b(not )?(?:partly )?reproduced\b|\*partly\*|\bpartly reproduced\b")


def typed_verdicts(text: str) -> list[str]:
    """Sentences with a verdict that is typed in: it would go stale when the numbers change.

    A sentence may say what the verdicts mean (it has "reproduced" and "partly"), or have a mark of the same verdict in
    its paragraph, which `contradicted` holds against the ledger.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", re.sub(_PREDICT, " ", text)):
        marked = {verdict for verdict, _ in _MARK.findall(paragraph)}
        for pattern in _NOT_PROSE:
            paragraph = re.sub(pattern, " ", paragraph)
        for sentence in re.split(r"(?<=[.!?])\s+|(?<!\\)\|", paragraph):
            said = _VERDICT.search(sentence)
            if said and not ("reproduced" in sentence and re.search(r"\*partly\*", sentence)):
                word = "partly" if "partly" in said[0] else "not reproduced" if said[1] else "reproduced"
                if word not in marked:
                    found.append(" ".join(sentence.split())[:100])
    return found


def contradicted(text: str, found: list[claims_ledger.Found], notebooks: set[str]) -> list[str]:
    """Marks of verdicts that the published runs of the ledger do not bear out.

    Parameters
    ----------
    text : Markdown
    found : of all executed notebooks
    notebooks : their names; claims of others are left alone

    Raises
    ------
    ValueError for a mark with an id that is not in `claims.yml`.
    """
    wrong = ["a verdict's mark cannot be read"] * (len(re.findall(r"<!--\s*verdict", text)) - len(_MARK.findall(text)))
    for said, names in _MARK.findall(text):
        for claim in map(claims_ledger.get, re.split(r"[\s,]+", names.strip())):
            runs = [run for one in found if one.claim is claim for run in one.runs.items()]
            made = {title: run["verdict"] for title, run in runs if title.startswith("published") and "verdict" in run}
            other = [f"{verdict} in {title!r}" for title, verdict in made.items() if verdict != said]
            if claim.notebook in notebooks and (other or not made):
                wrong.append(f"says that {claim.id} is {said}; the ledger: {', '.join(other) or 'nothing published'}")
    return wrong


def outside_the_ledger(name: str, notebook) -> list[str]:
    """Claims of this chapter that none of its boxes recorded, and rows of boxes that are no claim of it."""
    found = claims_ledger.found(notebook)
    made = {one.claim.id for one in found}
    wrong = [f"claim {i!r} has no record" for i, one in claims_ledger.every().items() if one.notebook == name]
    wrong = [line for line in wrong if line.split("'")[1] not in made]
    wrong += [f"claim {one.claim.id!r} belongs to {one.claim.notebook}" for one in found if one.claim.notebook != name]
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            box = "".join(output.get("data", {}).get("text/html", ""))
            if box.startswith('<div class="claims">'):
                rows = re.findall(r"<tr><td>(.*?)</td>", box)  # a row of the ledger has an id
                wrong += [f"the box's row {row!r} has no record: write the claim into claims.yml" for row in rows]
    return wrong


# --- all of it -------------------------------------------------------------------------------------


def texts(notebook) -> list[str]:
    """Markdown cells, captions and alternative texts of a notebook."""
    found = []
    for cell in notebook["cells"]:
        mystnb = cell["metadata"].get("mystnb", {})
        found += [mystnb.get("figure", {}).get("caption", ""), mystnb.get("image", {}).get("alt", "")]
        found += ["".join(cell["source"])] if cell["cell_type"] == "markdown" else []
    return found


def errors(executed: Mapping[Path, Path], pages: Mapping[str, str]) -> list[str]:
    """All that a book must not say: of its chapters (source -> execution) and of its pages (name -> Markdown)."""
    said, found, said_by = [], [], dict(pages)
    for source, path in executed.items():
        notebook, own = nbformat.read(path, 4), nbformat.read(source, 4)
        found += claims_ledger.found(notebook)
        said_by[source.name] = "\n\n".join(texts(own))
        for cell, where in unrecorded_numbers(own):
            said.append(f"{source.name}, cell {cell}: {where} is typed in; record() it and use {{glue:text}}.")
        for name in missing_records(notebook):
            said.append(f"{source.name}: prose reads {name!r}, which no cell records.")
        said += [f"{source.name}: {line}." for line in outside_the_ledger(source.stem, notebook)]
    for name, text in said_by.items():
        for sentence in typed_verdicts(text):
            said.append(f"{name}: the verdict in {sentence!r} is typed in; mark it as book/prose.py says.")
        said += [f"{name}: {line}." for line in contradicted(text, found, {source.stem for source in executed})]
    return said
