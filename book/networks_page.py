"""Fill the page of trained networks with the published table: `python book/networks_page.py FOLDER`, from build.py."""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]
from convergent import published  # noqa: E402  # this checkout's, whatever is installed
from filling import fill, markdown, provenance  # noqa: E402


def of_networks(table: pd.DataFrame) -> str:
    """One row for each image set and architecture: how many, what they are, how well they do."""
    rows = []
    for title, images in table.groupby("image_set", sort=False):
        rows.append([f"**{title}**", *[""] * 6])
        for architecture, group in images.groupby("architecture", sort=False):
            first, accuracy, kept = group.iloc[0], 100 * group.test_accuracy, int(group.through_training.sum())
            rows.append(
                [
                    f"`{architecture}`",
                    f"{len(group)}" + (f" ({kept})" if kept else ""),
                    f"{first.width:g}",
                    f"{first.weights:,}",
                    f"{first.epochs}",
                    f"{accuracy.mean():.1f} ({accuracy.min():.1f}–{accuracy.max():.1f})",
                    f"{100 * first.chance:.3g}",
                ]
            )
    header = ["network", "seeds (kept)", "width", "weights", "epochs", "test accuracy, %", "chance, %"]
    return markdown(header, rows, numeric=6)


def values(table: pd.DataFrame, told: dict) -> dict:
    """Everything that the page can ask for, by name."""
    found = {
        "networks": of_networks(table),
        "n_networks": len(table),
        "hours": table.minutes.sum() / 60,
        "provenance": provenance(told),
    }
    for name in ("batch_size", "learning_rate", "weight_decay"):
        [found[name]] = table[name].unique()  # the page speaks of one recipe
    return found


def main(folder: Path) -> None:
    table, about = published.read("networks")
    page = folder / "networks.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), values(table, about["provenance"])), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
