"""Which of a billion rows have come: a few intervals, whatever their number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rows:
    """A set of row numbers as sorted intervals [start, stop) that do not touch."""

    intervals: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, rows: slice) -> "Rows":
        """The rows of a slice."""
        return cls(((rows.start, rows.stop),) if rows.stop > rows.start else ())

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.intervals)

    @property
    def end(self) -> int:
        """One more than the last row; 0 for none."""
        return self.intervals[-1][1] if self.intervals else 0

    def __or__(self, other: "Rows") -> "Rows":
        merged = []
        for start, stop in sorted(self.intervals + other.intervals):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        return Rows(tuple(merged))

    def shared(self, other: "Rows") -> int:
        """How many rows are in both."""
        return len(self) + len(other) - len(self | other)
