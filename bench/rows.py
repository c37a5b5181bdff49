"""What a measure answers: rows of one shape, in `bench/results/latest.json` as on the screen."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` above 1 is better than the baseline; `least` and `most` are limits the value must keep."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    least: float | None = None
    most: float | None = None
    note: str = ""

    @classmethod
    def more(
        cls, name: str, value: float, unit: str, baseline: float, *, least: float | None = None, note: str = ""
    ) -> Self:
        """A figure of which more is better, such as runs a second."""
        return cls(name, value, unit, baseline, value / baseline, least=least, note=note)

    @classmethod
    def less(
        cls, name: str, value: float, unit: str, baseline: float, *, most: float | None = None, note: str = ""
    ) -> Self:
        """A figure of which less is better, such as milliseconds of CPU; nothing at all has no ratio."""
        return cls(name, value, unit, baseline, baseline / value if value else None, most=most, note=note)

    @property
    def keeps(self) -> bool:
        """Whether the value is within its limits."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def document(self) -> dict[str, object]:
        """For JSON: the five names every row has, and of the others those that say something."""
        always = ("name", "value", "unit", "baseline", "ratio")
        return {
            name: _brief(value) for name, value in asdict(self).items() if name in always or value not in {None, ""}
        }


def kept(rows: Iterable[Row]) -> bool:
    """Whether every figure that has a limit keeps it."""
    return all(row.keeps for row in rows)


def _brief(value: object) -> object:
    """Four digits are more than a measurement knows."""
    if not isinstance(value, float):
        return value
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")  # noqa: PLR2004  (of four digits)
