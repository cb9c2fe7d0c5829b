"""The generated pages of docs/ are current, and say what they must."""

from pathlib import Path
from typing import Final

import pytest

from docs import generate
from exporter import closecodes
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric

DOCS: Final = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    ("name", "rendered"),
    [("close-codes.md", generate.render_close_codes()), ("metrics.md", generate.render_metrics())],
)
def test_committed_page_is_current(name: str, rendered: str) -> None:
    """A generated page is what its source renders to; `make docs` writes it anew."""
    assert (DOCS / name).read_text(encoding="utf-8") == rendered, "run `make docs`"


def test_write_writes_both_pages(tmp_path: Path) -> None:
    """The script writes exactly the two pages."""
    generate.write(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "close-codes.md": generate.render_close_codes(),
        "metrics.md": generate.render_metrics(),
    }


@pytest.mark.parametrize("metric", catalogue.METRICS, ids=lambda metric: metric.name)
def test_every_family_is_documented(metric: Metric) -> None:
    """Each family has a section with its meaning, type, labels and, for a histogram, one word per bucket."""
    page = generate.render_metrics()
    section = page.partition(f"### `{metric.name}`\n")[2].partition("\n#")[0]
    assert metric.help in section
    assert f"- type: {metric.type}\n" in section
    labels = next(line for line in section.splitlines() if line.startswith("- labels: "))
    assert labels == f"- labels: {' '.join(f'`{label}`' for label in metric.labels) or 'none'}"
    buckets = [line for line in section.splitlines() if line.startswith("- buckets: ")]
    assert [line.count(",") + 1 for line in buckets] == ([len(metric.bounds)] if metric.bounds else [])


def test_every_label_is_explained_and_none_besides() -> None:
    """The label table explains each label of the catalogue, and no label that no family has."""
    used = {(metric.name, label) for metric in catalogue.METRICS for label in metric.labels}
    unexplained = {
        (family, label) for family, label in used if not {(family, label), ("", label)} & set(generate.MEANINGS)
    }
    assert unexplained == set()
    own = {key for key in generate.MEANINGS if key[0]}
    shared = {("", label) for family, label in used if (family, label) not in own}
    assert set(generate.MEANINGS) == own | shared
    assert own <= used


def test_metrics_page_warns_before_the_first_query() -> None:
    """What a reader must know first stands before the first family: sources, births at zero, bounds."""
    intro = generate.render_metrics().partition("## Connections")[0]
    for words in ("Never sum over `source`", "Born at zero", "Bounded", "exactly once"):
        assert words in intro


@pytest.mark.parametrize("entry", closecodes.ENTRIES, ids=lambda entry: entry.span)
def test_every_close_code_is_documented(entry: closecodes.CloseCode | closecodes.CodeRange) -> None:
    """Each code and range has a section with all that is known about it."""
    section = generate.render_close_codes().partition(f"### {entry.span} {entry.name}\n")[2].partition("\n#")[0]
    for text in (entry.meaning, entry.seen_when, entry.fix, f"`{entry.close_class}`"):
        assert text in section


def test_close_codes_page_compares_1001_and_1009() -> None:
    """The page tells the two first-class failures apart and says which remedy to use when."""
    page = generate.render_close_codes()
    section = page.partition("## 1001 Going Away or 1009 Message Too Big?\n")[2].partition("\n## ")[0]
    assert closecodes.CONTRASTS[1001, 1009] in section
    for question, one, other in closecodes.conduct_rows(1001, 1009):
        assert f"| {question} | {one} | {other} |\n" in section
    for remedy in (*closecodes.remedies(1001), *closecodes.remedies(1009)):
        assert f"| {remedy.when} | {remedy.do} |\n" in section


def test_tables_keep_their_columns() -> None:
    """Every row of every table has as many cells as its head."""
    for page in (generate.render_close_codes(), generate.render_metrics()):
        tables = [block for block in page.split("\n\n") if block.startswith("| ")]
        assert tables
        for table in tables:
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
