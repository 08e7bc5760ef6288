"""How scripts put numbers and tables into the book's pages (`*_page.py`), so that none is typed in and none goes stale.

In such a page {filled}`name:.1f` stands for the value `name`, formatted as Python formats it.
"""

import re

TOKEN = re.compile(r"\{filled\}`(\w+)(?::([^`]+))?`")


def fill(text: str, found: dict) -> str:
    """The page with every {filled} token replaced.

    Raises
    ------
    ValueError for a name that is not known.
    """

    def of(token: re.Match) -> str:
        if token[1] not in found:
            raise ValueError(f"the page asks for {token[1]!r}; there are {', '.join(found)}")
        return format(found[token[1]], token[2] or "")

    return TOKEN.sub(of, text)


def markdown(header: list[str], rows: list[list[str]], numeric: int = 0) -> str:
    """A table whose last `numeric` columns are numbers."""
    rule = ["---"] * (len(header) - numeric) + ["--:"] * numeric
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def provenance(told: dict[str, str]) -> str:
    """Where a published table came from, as a table of two columns."""
    return markdown(["", ""], [[name, f"`{said}`" if name == "repeat" else said] for name, said in told.items()])
