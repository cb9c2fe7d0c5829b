"""What `websocket-exporter codes` prints, as an operator reads it."""

import textwrap
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import closecodes, codes
from exporter.closecodes import REGISTRY

BOUNDARIES: Final = (0, 999, 1000, 1004, 1005, 1015, 1016, 2999, 3000, 3001, 3999, 4000, 4999, 5000, 65535)

anything: Final = st.sampled_from(sorted(REGISTRY)) | st.integers(0, 65535)
widths: Final = st.integers(0, 200)


def flat(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def assert_fits(text: str, width: int) -> None:
    for line in text.splitlines():
        assert len(line) <= max(width, codes.MIN_WIDTH), line
        assert line == line.rstrip(), line
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text.isascii()
    assert text.isprintable() or set(text) - {"\n"} <= set(map(chr, range(32, 127)))


def test_listing_has_a_row_for_every_code_and_range() -> None:
    """All codes in ascending order, with name and class, and the ranges around them."""
    rows = [line for line in codes.listing().splitlines() if line[:1].isdigit()]
    assert [row.split()[0] for row in rows] == [entry.span for entry in closecodes.ENTRIES]
    for row, entry in zip(rows, closecodes.ENTRIES, strict=True):
        assert row[12:].startswith(entry.name)
        assert f"  {entry.close_class}  " in row


def test_listing_tells_how_to_go_on() -> None:
    """The list ends with the two commands that say more."""
    assert codes.listing().splitlines()[-2:] == [
        "One code in full: websocket-exporter codes 1009",
        "Two side by side: websocket-exporter codes 1001 1009",
    ]


@given(widths)
def test_listing_fits(width: int) -> None:
    """No line is wider than asked, and a narrow terminal gets the meaning below the row."""
    text = codes.listing(width)
    assert_fits(text, width)
    assert "A peer refused a message over its limit" in flat(text)


def test_listing_in_eighty_columns() -> None:
    """In 80 columns the meaning stands below its row, in whole words."""
    lines = codes.listing(80).splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("1009"))
    assert lines[row : row + 2] == [
        "1009        Message Too Big             too_big",
        "      A peer refused a message over its limit",
    ]


@pytest.mark.parametrize("code", sorted(REGISTRY))
def test_describe_tells_everything_about_a_registered_code(code: int) -> None:
    """One code in full: its name, all that is known, how it behaves, and the query that counts it."""
    text, entry = codes.describe(code), REGISTRY[code]
    assert text.startswith(f"{code} {entry.name}\n{'=' * len(f'{code} {entry.name}')}\n")
    told = flat(text)
    for part in (entry.meaning, entry.seen_when, entry.fix):
        assert flat(part) in told
    for question, answer in closecodes.conduct(code).answers():
        assert flat(f"{question} {answer}") in told
    assert f'websocket_closes_total{{code="{code}",class="{entry.close_class}"}}' in text


@pytest.mark.parametrize("code", sorted(closecodes.REMEDIES))
def test_describe_tells_which_remedy_when(code: int) -> None:
    """A code with several remedies lists each under the case in which it helps."""
    told = flat(codes.describe(code))
    assert "Which remedy when" in told
    for remedy in closecodes.REMEDIES[code]:
        assert flat(f"{remedy.when}: {remedy.do}") in told


def test_describe_has_no_list_of_one_remedy() -> None:
    """Where there is but one remedy, the fix says it all."""
    assert "Which remedy when" not in codes.describe(1002)


@pytest.mark.parametrize(
    ("code", "title", "label", "close_class"),
    [
        (0, "0 Not used (0-999)", "invalid", "invalid"),
        (999, "999 Not used (0-999)", "invalid", "invalid"),
        (1004, "1004 Reserved", "invalid", "invalid"),
        (1016, "1016 Reserved (1016-2999)", "reserved", "invalid"),
        (2999, "2999 Reserved (1016-2999)", "reserved", "invalid"),
        (3001, "3001 Libraries and frameworks (3000-3999)", "3xxx", "application"),
        (3999, "3999 Libraries and frameworks (3000-3999)", "3xxx", "application"),
        (4000, "4000 Private Use (4000-4999)", "4xxx", "application"),
        (4999, "4999 Private Use (4000-4999)", "4xxx", "application"),
        (5000, "5000 Not used (5000-65535)", "invalid", "invalid"),
        (65535, "65535 Not used (5000-65535)", "invalid", "invalid"),
    ],
)
def test_describe_speaks_of_the_range_of_an_unregistered_code(
    code: int, title: str, label: str, close_class: str
) -> None:
    """A code without an entry is described by its range, under the label it is really counted by."""
    text = codes.describe(code)
    assert text.splitlines()[0] == title
    assert f'websocket_closes_total{{code="{label}",class="{close_class}"}}' in text


def test_describe_tells_how_to_count_an_application_code_by_itself() -> None:
    """Who asks for 4001 learns that only the service knows it, and how to give it a label of its own."""
    told = flat(codes.describe(4001))
    assert "only that service knows what one means" in told
    assert 'As code="4001" once the target\'s codes or going_away_codes list 4001.' in told


def test_describe_gives_a_query_to_paste() -> None:
    """The query keeps sources apart and stands on lines of its own."""
    query = textwrap.dedent("""\
          sum by (target, source, initiator) (
            increase(websocket_closes_total{code="1009"}[15m])
          )
    """)
    assert textwrap.indent(textwrap.dedent(query), "  ") in codes.describe(1009, 60)


def test_describe_points_at_comparisons() -> None:
    """A code that is often confused with others names the command that puts them side by side."""
    assert codes.describe(1009).endswith("Side by side: websocket-exporter codes 1001 1009\n")
    assert "Side by side" not in codes.describe(4001)


@given(anything, widths)
def test_describe_fits(code: int, width: int) -> None:
    """No line of any code is wider than asked."""
    assert_fits(codes.describe(code, width), width)


def test_compare_puts_1001_and_1009_side_by_side() -> None:
    """The comparison of the two first-class failures: what differs in two columns, then which remedy when."""
    text = codes.compare(1001, 1009)
    assert text.splitlines()[0] == "1001 and 1009 side by side"
    told = flat(text)
    assert flat(closecodes.CONTRASTS[1001, 1009]) in told
    for question, _, _ in closecodes.conduct_rows(1001, 1009):
        assert f"\n{question}\n" in text
    for code in (1001, 1009):
        for remedy in closecodes.REMEDIES[code]:
            assert flat(f"{remedy.when}: {remedy.do}") in told
    assert text.index("Key differences") < text.index("Is it an error?") < text.index("Which remedy when: 1001")
    assert text.index("Which remedy when: 1001") < text.index("Which remedy when: 1009")


def test_compare_reads_down_each_column() -> None:
    """Each column by itself is the whole answer for its code, and all bars stand in one line."""
    text = codes.compare(1001, 1009)
    rows = [line for line in text.splitlines()[2:] if " |" in line]
    bars = {line.index("|") for line in rows}
    assert len(bars) == 1
    bar = bars.pop()
    left = flat(" ".join(line[:bar] for line in rows))
    right = flat(" ".join(line[bar + 1 :] for line in rows))
    for column, code in ((left, 1001), (right, 1009)):
        for part in (REGISTRY[code].meaning, REGISTRY[code].seen_when, REGISTRY[code].close_class):
            assert flat(part) in column
        assert all(answer in column for _, answer in closecodes.conduct(code).answers())


def test_compare_keeps_the_order_asked_for() -> None:
    """The code named first stands left; the key difference is told either way."""
    text = codes.compare(1009, 1001)
    assert text.splitlines()[0] == "1009 and 1001 side by side"
    assert f"  {'1009 Message Too Big':<47} | 1001 Going Away\n" in text
    assert flat(closecodes.CONTRASTS[1001, 1009]) in flat(text)


def test_compare_works_for_any_two_codes() -> None:
    """Codes that nobody confuses, and ranges, are compared too, each with its one remedy."""
    text = codes.compare(4001, 1002)
    assert text.splitlines()[0] == "4001 and 1002 side by side"
    assert "In short" not in text
    assert flat(f"Which remedy when: 1002 Protocol error Always: {REGISTRY[1002].fix}") in flat(text)


def test_compare_of_a_code_with_itself_is_its_description() -> None:
    """There is nothing to compare: the code is described."""
    assert codes.compare(1009, 1009, 80) == codes.describe(1009, 80)


@given(anything, anything, widths)
def test_compare_fits(left: int, right: int, width: int) -> None:
    """No line of any comparison is wider than asked."""
    assert_fits(codes.compare(left, right, width), width)


@pytest.mark.parametrize("code", BOUNDARIES)
def test_a_terminal_too_narrow_gets_the_least_width(code: int) -> None:
    """Below the least width nothing is wrapped any further."""
    assert codes.describe(code, 1) == codes.describe(code, codes.MIN_WIDTH)
    assert codes.compare(code, 1009, 1) == codes.compare(code, 1009, codes.MIN_WIDTH)


@pytest.mark.parametrize("code", [-1, 65536])
def test_unknown_code(code: int) -> None:
    """A number that no Close frame can carry gets one exact sentence, wherever it stands."""
    sentence = f"{code} is no close code: a Close frame carries a number from 0 to 65535"
    with pytest.raises(codes.UnknownCode) as described:
        codes.describe(code)
    with pytest.raises(codes.UnknownCode) as left:
        codes.compare(code, 1001)
    with pytest.raises(codes.UnknownCode) as right:
        codes.compare(1001, code)
    assert [str(caught.value) for caught in (described, left, right)] == [sentence] * 3
