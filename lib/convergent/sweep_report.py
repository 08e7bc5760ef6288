"""The report of a sweep: one HTML file that needs nothing else, with a small figure for each recorded number."""

import base64
import html
import io
import time

import matplotlib.pyplot as plt
import pandas as pd

from . import plots

MOST = 40  # numbers that get a figure, in the order in which the notebook recorded them
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
body { color: #222; background: #fff }
table { border-collapse: collapse; font-size: 14px }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
.wide { overflow-x: auto }
td.failed { color: #a4262c; font-weight: 600 }
.figures { display: flex; flex-wrap: wrap; gap: 0 1.5rem }
figure { margin: 0 0 1rem }
img { max-width: 100% }
pre { white-space: pre-wrap; background: #f5f5f5; padding: .6rem }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sweep of {title}</title><style>{style}</style></head><body>
<h1>Sweep of {title}</h1>
{body}
</body></html>
"""


def page(title: str, about: pd.DataFrame, results: pd.DataFrame, tables: list[str]) -> str:
    """The report as HTML.

    Parameters
    ----------
    title : name of the notebook
    about, results : as `sweep_tables.of_runs` and `sweep_tables.values` give them
    tables : names of the kept tables, which lie beside the report
    """
    counts = about.status.value_counts()
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    parts = [f"<p>{len(about)} runs: {told}. Written {time.strftime('%Y-%m-%d %H:%M')}.</p>"]
    failed = about[about.status == "failed"]
    if len(failed):
        errors = "".join(f"<h3>{_link(row)}</h3><pre>{html.escape(row.error)}</pre>" for row in failed.itertuples())
        parts.append(f"<h2>Failed runs</h2>{errors}")
    parameters = [c for c in about.columns[1:] if c not in ("status", "seconds", "error", "folder")]
    parts.append(_numbers(results, [name for name in parameters if about[name].map(str).nunique() > 1]))
    files = ["results.csv", "runs.csv", *(f"tables/{name}.csv" for name in tables)]
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in files)
    parts.append(f"<h2>Tables</h2><p>{links}; the same as .parquet.</p>")
    parts.append(f"<h2>Runs</h2>{_runs(about, parameters)}")
    return _PAGE.format(title=html.escape(title), style=_STYLE, body="".join(parts))


def _link(row) -> str:
    return f'<a href="{html.escape(row.folder)}/notebook.ipynb">{html.escape(row.run)}</a>'


def _runs(about: pd.DataFrame, parameters: list[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*parameters, "status", "seconds", "executed notebook"])
    rows = ""
    for row in about.itertuples():
        cells = "".join(f"<td>{html.escape(str(about.at[row.Index, name]))}</td>" for name in parameters)
        seconds = "" if pd.isna(row.seconds) else f"{row.seconds:.0f}"
        link = _link(row) if row.status != "missing" else ""
        rows += f'<tr>{cells}<td class="{row.status}">{row.status}</td><td>{seconds}</td><td>{link}</td></tr>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _numbers(results: pd.DataFrame, varying: list[str]) -> str:
    """A figure for each number that differs between runs; in a line, those that do not."""
    numbers = results.dropna(subset="value")
    names = list(dict.fromkeys(numbers.name))
    same = [name for name in names if numbers[numbers.name == name].value.nunique() == 1]
    moving = [name for name in names if name not in same]
    if not moving or not varying:
        return f"<h2>Numbers</h2><p>{'No number differs between the runs.' if names else 'No run is done yet.'}</p>"
    x, colour, column = axes_of(numbers, varying)
    told = f"across: {x}" + (f"; colours: {colour}" if colour else "") + (f"; panels: {column}" if column else "")
    rest = [name for name in varying if name not in (x, colour, column)]
    told += f"; lines are means over {', '.join(rest)}, dots single runs" if rest else ""
    levels = [] if colour is None else list(dict.fromkeys(numbers[colour].map(str)))  # a level keeps its colour
    figures = "".join(_figure(numbers[numbers.name == n], n, x, colour, column, levels) for n in moving[:MOST])
    more = f"<p>{len(moving) - MOST} more differ: they are in the table.</p>" if len(moving) > MOST else ""
    equal = f"<p>The same in all runs: {html.escape(', '.join(same))}.</p>" if same else ""
    return f"<h2>Numbers</h2><p>{html.escape(told)}.</p><div class='figures'>{figures}</div>{more}{equal}"


def axes_of(numbers: pd.DataFrame, varying: list[str]) -> tuple[str, str | None, str | None]:
    """Which parameter runs across, which has colours, which has panels of its own.

    Across runs the one with most values, numbers before names; a parameter called `seed` is averaged over where there
    is another, and so is what has more values than there are colours or room for panels.
    """
    levels = {name: numbers[name].map(str).nunique() for name in varying}
    numeric = {name: pd.api.types.is_numeric_dtype(numbers[name]) for name in varying}
    order = sorted(varying, key=lambda name: (name != "seed", numeric[name], levels[name]), reverse=True)
    x, rest = order[0], [name for name in order[1:] if name != "seed"]
    colour = next((name for name in rest if levels[name] <= len(plots.PALETTE)), None)
    column = next((name for name in rest if name != colour and levels[name] <= 4), None)
    return x, colour, column


def _figure(rows: pd.DataFrame, name: str, x: str, colour: str | None, column: str | None, levels: list[str]) -> str:
    panels = [(None, rows)] if column is None else list(rows.groupby(column, sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.2 * len(panels) + 1.3, 2.1), sharey=True, squeeze=False, layout="constrained"
    )
    numeric = pd.api.types.is_numeric_dtype(rows[x])
    ticks = {str(value): value if numeric else i for i, value in enumerate(dict.fromkeys(rows[x]))}
    shades = dict(zip(levels, plots.PALETTE, strict=False))
    for ax, (value, panel) in zip(axes[0], panels, strict=True):
        groups = [(None, panel)] if colour is None else list(panel.groupby(colour, sort=False))
        for level, group in groups:
            shade = shades.get(str(level), plots.PALETTE[0])
            at = group[x].map(str).map(ticks)
            ax.plot(at, group.value, "o", ms=3, color=shade, alpha=0.5)
            means = group.value.groupby(at).mean()
            ax.plot(means.index, means, color=shade)
        ax.set_xlabel(x)
        ax.set_title("" if value is None else f"{column} = {value}", loc="left")
        if len(ticks) <= 8:
            ax.set_xticks(list(ticks.values()), list(ticks))
    if colour is not None:
        lines = [plt.Line2D([], [], color=shade) for shade in shades.values()]
        figure.legend(lines, list(shades), title=colour, loc="outside right center")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, facecolor="white")
    plt.close(figure)
    alt = html.escape(
        f"{name} against {x}, from {rows.value.min():.4g} to {rows.value.max():.4g} over {len(rows)} runs"
    )
    data = base64.b64encode(image.getvalue()).decode()
    shown = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return f"<figure><figcaption><b>{html.escape(name)}</b></figcaption>{shown}</figure>"
