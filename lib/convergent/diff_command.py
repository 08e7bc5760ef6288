"""`python -m convergent diff RUN [RUN]`: what the reader types and is told."""

import html
import json
import sys
from pathlib import Path

_ABOUT = """A RUN is an executed notebook or a folder of a sweep. Alone, it is compared with the run of the book made
here, and its tables with the published ones."""
_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 14px; margin-bottom: 2rem }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
.differs, .False { color: #a4262c; font-weight: 600 }"""


def add_to(commands) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "diff",
        help="does a run reproduce another, the book's or the published one?",
        description=_ABOUT,
        epilog="exit codes: 0 everything agrees; 1 something differs; 2 there is nothing to compare",
    )
    parser.add_argument("a", type=Path, metavar="RUN")
    parser.add_argument("b", type=Path, metavar="RUN", nargs="?")
    parser.add_argument("--relative", type=float, metavar="SHARE", help="tolerated difference; 0.001 unless said")
    parser.add_argument(
        "--tolerance",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "WIDTH"),
        help='of one value, or of all that fit a pattern such as "*_slope"',
    )
    parser.add_argument("--json", action="store_true", help="as JSON instead of text")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.set_defaults(run=run)


def run(options) -> int:
    """Compare; the exit code."""
    from . import diff, diff_sides

    try:
        first = diff_sides.read(options.a)
        if options.b is not None:
            others = [diff_sides.read(options.b)]
        else:
            others = [side for side in (diff_sides.of_book(first), diff_sides.of_published(first)) if side]
        tolerances = {name: _width(name, width) for name, width in options.tolerance}
    except diff_sides.DiffError as error:
        print(f"convergent diff: {error}", file=sys.stderr)
        return 2
    if not others:
        print(
            f"convergent diff: nothing to compare {options.a} with: `make book` has not run {first.chapter} at this "
            "tier here, and none of its tables was published on these images. Name a second run",
            file=sys.stderr,
        )
        return 2
    share = diff.RELATIVE if options.relative is None else options.relative
    found = [diff.compare(first, other, share, tolerances) for other in others]
    print(json.dumps([as_dict(one) for one in found], indent=1) if options.json else "\n\n".join(map(text, found)))
    if options.html:
        options.html.write_text(page(found), encoding="utf-8")
    return 0 if all(one.reproduced for one in found) else 1


def _width(name: str, width: str) -> float:
    from .diff_sides import DiffError

    try:
        return float(width)
    except ValueError:
        raise DiffError(f"--tolerance {name} {width}: the width is a number, such as 0.02") from None


def as_dict(found) -> dict:
    """What was found, as JSON can hold it."""
    frames = {name: json.loads(getattr(found, name).to_json(orient="records")) for name in _FRAMES}
    return {"a": found.a, "b": found.b, "reproduced": found.reproduced, "rules": found.rules} | frames


_FRAMES = ("circumstances", "values", "tables")


def text(found) -> str:
    """What was found, for a terminal."""
    lines = [f"a: {found.a}", f"b: {found.b}", "", "Circumstances"]
    for row in found.circumstances.itertuples():
        if row.same is None:
            told = f"not known ({row.a or 'a does not say'} | {row.b or 'b does not say'})"
        else:
            told = f"same: {row.a}" if row.same else f"DIFFERS: {row.a} | {row.b}"
        lines.append(f"  {row.what:<20} {told:.240}")
    if len(found.values):
        counts = found.values.verdict.value_counts()
        plural = {"agrees": "agree", "differs": "differ"}
        lines += ["", "Recorded values: " + ", ".join(f"{n} {plural.get(v, v)}" for v, n in counts.items())]
        for row in found.values[~found.values.verdict.isin(["same", "agrees"])].itertuples():
            gap = "" if row.difference is None else f"  by {row.difference:+.3g}, tolerance {row.tolerance:.2g}"
            lines.append(f"  {row.verdict}: {row.name}  {_short(row.a)} | {_short(row.b)}{gap}")
    if len(found.tables):
        lines += ["", "Tables (rows in both: same, agree, differ; largest difference and its row)"]
        for row in found.tables.itertuples():
            counts = f"{row.rows} rows: {row.same} same, {row.agree} agree, {row.differ} differ"
            worst = f"; largest {row.largest:.3g} at {row.where:.90}" if row.largest else ""
            alone = f"; {row.unmatched} rows in one only" if row.unmatched else ""
            lines.append(f"  {row.table}.{row.column}: {counts}{worst}{alone}")
    lines += ["", "Reproduced: everything agrees." if found.reproduced else "Not reproduced: see what differs above."]
    return "\n".join(lines)


def _short(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value!s:.60}"


def page(found: list) -> str:
    """What was found, as one HTML file that needs nothing else."""
    body = ""
    for one in found:
        verdict = "reproduced" if one.reproduced else "not reproduced"
        body += f"<h1>{html.escape(one.a)} | {html.escape(one.b)}: {verdict}</h1>"
        rules = ", ".join(f"{name} {width:g}" for name, width in one.rules.items())
        body += f"<p>Tolerances: {html.escape(rules)}.</p>"
        for name in _FRAMES:
            frame = getattr(one, name)
            if len(frame):
                body += f"<h2>{name.capitalize()}</h2>{_html_table(frame)}"
    head = f'<meta charset="utf-8"><title>Reproduction</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _html_table(frame) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame)
    rows = ""
    for row in frame.itertuples(index=False):
        cells = ["" if value is None or value != value else _short(value) for value in row]
        rows += "<tr>" + "".join(f'<td class="{html.escape(c)}">{html.escape(c)}</td>' for c in cells) + "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
