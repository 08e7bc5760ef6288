"""Fill the page of trained networks with the published table: `python book/networks_page.py FOLDER`, from build.py."""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]
from convergent import published  # noqa: E402  # this checkout's, whatever is installed
from filling import fill, markdown, provenance  # noqa: E402

ENCODINGS = ("factorised_vgg", "plain_vgg")  # of chapters 9 and 10, with a recipe of their own
LABELS = {"true": "", "few": ", few images", "random": ", random labels"}


def of_networks(table: pd.DataFrame) -> str:
    """One row for each image set, architecture and kind of labels: how many, what they are, how well they do."""
    rows = []
    for title, images in table.groupby("image_set", sort=False):
        rows.append([f"**{title}**", *[""] * 7])
        for (architecture, labels), group in images.groupby(["architecture", "labels"], sort=False):
            first, kept = group.iloc[0], int(group.through_training.sum())
            rows.append(
                [
                    f"`{architecture}`{LABELS[labels]}",
                    f"{len(group)}" + (f" ({kept})" if kept else ""),
                    f"{first.width:g}",
                    f"{first.weights:,}",
                    f"{first.epochs}",
                    _range(group.train_accuracy),
                    _range(group.test_accuracy),
                    f"{100 * first.chance:.3g}",
                ]
            )
    header = ["network", "seeds (kept)", "width", "weights", "epochs", "training, %", "test, %", "chance, %"]
    return markdown(header, rows, numeric=7)


def _range(shares: pd.Series) -> str:
    accuracy = 100 * shares
    ends = f" ({accuracy.min():.1f}–{accuracy.max():.1f})" if len(accuracy) > 1 else ""
    return f"{accuracy.mean():.1f}{ends}"


def values(table: pd.DataFrame, told: dict) -> dict:
    """Everything that the page can ask for, by name."""
    is_encoding = table.architecture.isin(ENCODINGS)
    parts = {"": table[~is_encoding], "encodings_": table[is_encoding]}
    found = {"provenance": provenance(told), "hours": table.minutes.sum() / 60, "n_all": len(table)}
    for prefix, part in parts.items():
        found |= {f"{prefix}networks": of_networks(part), f"n_{prefix}networks": len(part)}
        for name in ("batch_size", "learning_rate", "weight_decay"):
            [found[prefix + name]] = part[name].unique()  # the page speaks of one recipe for each part
    return found


def main(folder: Path) -> None:
    table, about = published.read("networks")
    page = folder / "networks.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), values(table, about["provenance"])), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
