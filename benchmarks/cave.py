"""Rendering speed: 20,000 images of the cave, photographs read from disk the first time."""

from time import perf_counter

from convergent import cave


def main() -> None:
    """Print the seconds of the first rendering in a process, and of the next."""
    for turn in ("first", "second"):
        start = perf_counter()
        images, _ = cave.render(20_000, seed=0)
        print(f"cave: {len(images):,} images in {perf_counter() - start:.2f} s ({turn} call; target 3 s)")


if __name__ == "__main__":
    main()
