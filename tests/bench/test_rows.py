"""What the benchmark answers: rows, JSON and pictures."""

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import page
from bench.bed import percentile
from bench.chart import bars, lines
from bench.rows import Row, kept

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> Any:
    return ET.fromstring(svg)  # noqa: S314  (of our own making)


def test_a_ratio_above_one_is_better_whichever_way_a_figure_counts():
    assert Row.more("runs", 200, "/s", 50).ratio == 4
    assert Row.less("cpu", 10, "ms", 40).ratio == 4


def test_every_row_has_the_five_names_and_no_limit_that_was_not_given():
    assert Row("sleeper.bytes", 912.34567, "bytes").document() == {
        "name": "sleeper.bytes", "value": 912.3, "unit": "bytes", "baseline": None, "ratio": None,
    }  # fmt: skip
    told = Row.less("cpu", 12345.6, "ms", 20000, most=0, note="a run").document()
    assert (told["value"], told["baseline"], told["most"], told["note"]) == (12346, 20000, 0, "a run")
    json.dumps(told)


@pytest.mark.parametrize(
    ("row", "keeps"),
    [
        (Row("a", 1, "s"), True),
        (Row("a", 1, "s", least=1, most=1), True),
        (Row("a", 0.9, "s", least=1), False),
        (Row("a", 0.1, "s", most=0), False),
    ],
)
def test_a_limit_is_kept_or_not(row, keeps):
    assert row.keeps is keeps
    assert kept([Row("b", 1, "s"), row]) is keeps


def test_the_percentile_is_a_value_that_was_seen():
    assert percentile([3, 1, 2, 4], 0.5) == 2
    assert percentile([*range(1, 101)], 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_the_chart_has_a_bar_for_each_ratio_and_the_line_of_one():
    rows = [
        Row("alone", 1, "s"),
        Row.more("better", 400, "/s", 2),
        Row.more("worse", 1, "/s", 20),
        Row.less("<a&b>", 1, "s", 1),
    ]
    drawn = parsed(bars(rows, "Ratios"))
    told = [text.text for text in drawn.iter(f"{SVG}text")]
    assert "alone" not in told
    assert {"better", "worse", "<a&b>", "200", "0.05", "1"} <= set(told)
    width, height = float(drawn.get("width")), float(drawn.get("height"))
    shapes = [rect for rect in drawn.iter(f"{SVG}rect") if rect.get("class") in {"better", "worse"}]
    assert [rect.get("class") for rect in shapes] == ["better", "worse", "better"]
    (one,) = [line for line in drawn.iter(f"{SVG}line") if line.get("class") == "one"]
    left, right = (float(shapes[0].get("x")), float(shapes[1].get("x")) + float(shapes[1].get("width")))
    assert left == pytest.approx(float(one.get("x1")), abs=0.2) == pytest.approx(right, abs=0.2)
    for rect in shapes:
        assert float(rect.get("x")) >= 0
        assert float(rect.get("x")) + float(rect.get("width")) <= width
        assert float(rect.get("y")) + float(rect.get("height")) <= height


def test_no_rows_make_a_chart_too():
    assert parsed(bars([], "Nothing")).tag == f"{SVG}svg"


def test_each_series_is_a_line_within_the_picture():
    drawn = parsed(lines({"memory": [(0, 0), (5, 40), (10, 20)], "none": [(0, 0)]}, "Soak"))
    first, second = drawn.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in first.get("points").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][1] < points[2][1] < points[0][1]  # upwards is more
    assert second.get("points")


def test_the_page_gets_other_figures_between_its_marks_and_keeps_the_rest():
    machine = dict.fromkeys(("cores", "cpu", "postgresql", "temporal", "python", "dbos", "procrastinate", "load"), "1")
    rows = [Row.more("runs.no_wait", 12345, "/s", 10, least=1000), Row("runs.no_wait.cpu.relay", 1, "ms")]
    before = "# Page\n<!-- figures: make bench -->\nold\n<!-- end of figures -->\nrest\n"
    once = page.filled(before, {**machine, "memoryBytes": 8e9}, [row.document() for row in rows])
    assert once.startswith("# Page\n")
    assert once.endswith("<!-- end of figures -->\nrest\n")
    assert "| `runs.no_wait` | 12,345 /s | 10 | 1.23e+03 | ≥ 1,000 |" in once
    assert "old" not in once
    assert "cpu.relay" not in once
    assert page.filled(once, {**machine, "memoryBytes": 8e9}, [row.document() for row in rows]) == once
