"""Fill the ledger of claims from the executed chapters: `python book/claims_page.py FOLDER`, from book/build.py.

FOLDER holds the page; the executed notebooks lie in `../notebooks/` from there, and have recorded what they show of a
claim (`convergent.claims_ledger`); nothing is computed here.
"""

import html
import json
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]
from convergent import claims_ledger, paths  # noqa: E402  # this checkout's, whatever is installed
from convergent.claims import VERDICTS, tosses  # noqa: E402
from convergent.claims_ledger import Found  # noqa: E402
from filling import fill, markdown  # noqa: E402

HEAD = ("claim", "run", "verdict", "what is compared", "difference", "holds in", "by tosses")


class Chapter:
    """An executed notebook: its title, when it was run, and what its boxes show."""

    def __init__(self, path: Path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        outputs = [output.get("metadata", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
        stamps = [about["provenance"] for about in outputs if "provenance" in about]
        self.name = path.stem
        self.title = next(text for text in texts if text.startswith("# ")).splitlines()[0].removeprefix("# ")
        self.date = stamps[-1]["date"] if stamps else "–"
        self.found = claims_ledger.found(notebook)

    def made(self, found: Found, run: str) -> str:
        """When a run was made: this chapter, or the published table that the claim is weighed on."""
        title = run.removeprefix("published: ")
        if title == run:
            return self.date
        about = json.loads((paths.data() / "published" / f"{found.claim.table}.json").read_text(encoding="utf-8"))
        told = about.get(title) or about.get("provenance")  # one for all rows, where a program adds to a table
        if told is None:
            raise ValueError(f"claim {found.claim.id!r}: {found.claim.table}.json says nothing of {title!r}")
        return told["date"]


def weighed(found: list[Found], published: bool = True) -> list[dict]:
    """What was compared, of all claims and runs; of the published runs only, or of the others."""
    runs = [run for one in found for run in one.runs.items() if run[0].startswith("published") == published]
    return [run for _, run in runs if not isinstance(run, str)]


def summary(chapters: list[Chapter]) -> str:
    """A row for each work: its claims, and how they came out in the published runs; ours beside it."""
    rows = []
    for paper, name in claims_ledger.papers().items():
        every = [found for chapter in chapters for found in chapter.found if found.claim.paper == paper]
        for whose, mine in (("claimed there", False), ("controls and findings of ours", True)):
            found = [one for one in every if one.claim.source.startswith("(") == mine]
            if found:
                verdicts = [run["verdict"] for run in weighed(found)]
                counts = [f"{verdicts.count(verdict)}" for verdict in VERDICTS]
                rows.append([name, whose, f"{len({one.claim.id for one in found})}", *counts])
    return markdown(["work", "", "claims", *VERDICTS], rows, numeric=4)


def ledger(chapters: list[Chapter]) -> str:
    """For each work a section, in it a table for each chapter."""
    parts = []
    for paper, name in claims_ledger.papers().items():
        of = {chapter: [one for one in chapter.found if one.claim.paper == paper] for chapter in chapters}
        parts += [f"## {name}"] if any(of.values()) else []
        for chapter, found in of.items():
            if found:
                rows = "".join(_rows(chapter, one) for one in found)
                head = "".join(f"<th>{name}</th>" for name in HEAD)
                # One line, so that Markdown leaves it alone.
                table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
                parts += [f"### {chapter.title}", f'<div class="claims ledger">{table}</div>']
    return "\n\n".join(parts)


def _rows(chapter: Chapter, found: Found) -> str:
    claim, box = found.claim, f"../notebooks/{chapter.name}.html#{found.box}-{found.claim.id}"
    late = "<br>written after first numbers" if claim.written == "after" else ""
    said = f'<a href="{box}">{html.escape(claim.statement)}</a><br>{html.escape(claim.source)}{late}'
    first = f'<td rowspan="{len(found.runs)}">{said}<br><em>{html.escape(claim.statistic)}</em></td>'
    rows = ""
    for run, one in found.runs.items():
        cells = [html.escape(run), chapter.made(found, run)]
        if isinstance(one, str):
            rows += f'<tr>{first}<td>{"<br>".join(cells)}</td><td colspan="5">{html.escape(one)}</td></tr>'
        else:
            rows += f"<tr>{first}<td>{'<br>'.join(cells)}</td>{_numbers(one)}</tr>"
        first = ""
    return rows


def _numbers(one: dict) -> str:
    sides = [
        f"{html.escape(one[at])} {one[f'{at}_mean']:.2f} [{one[f'{at}_least']:.2f}, {one[f'{at}_most']:.2f}]"
        for at in ("high", "low")
    ]
    sides = [side.replace("nan [nan, nan]", "undefined") for side in sides]
    difference = "–" if math.isnan(one["difference"]) else f"{one['difference']:+.3f}"
    if not math.isnan(one["difference_low"]):
        difference += f"<br>[{one['difference_low']:+.3f}, {one['difference_high']:+.3f}]"
    margin = f"<br>by more than {one['margin']:g}" if one["margin"] else ""
    holds = f"{one['n_holds']} of {one['n']} {one['by']}s{margin}"
    verdict = f'<strong class="verdict {one["verdict"].split()[0]}">{one["verdict"]}</strong>'
    luck = tosses(one["n_independent"])
    cells = [verdict, "<br>".join(sides), difference, holds, "–" if luck is None else f"{luck:.2g}"]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def values(chapters: list[Chapter]) -> dict:
    """Everything that the page can ask for, by name."""
    found = [one for chapter in chapters for one in chapter.found]
    claims = {one.claim.id: one.claim for one in found}
    return {
        "rule": claims_ledger.rule(),
        "n_claims": len(claims),
        "n_rows": len(weighed(found)) + len(weighed(found, published=False)),
        "n_after": sum(claim.written == "after" for claim in claims.values()),
        "summary": summary(chapters),
        "ledger": ledger(chapters),
    }


def main(folder: Path) -> None:
    chapters = [Chapter(path) for path in sorted((folder.parent / "notebooks").glob("[0-9]*.ipynb"))]
    page = folder / "claims.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), values(chapters)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
