"""Reading what a client would rather have."""

import pytest

from exporter.web.negotiation import Choice, accepts_coding, choices


def test_the_most_wanted_comes_first() -> None:
    """Members are sorted by weight; equal ones keep their order, and one without a weight has 1."""
    field = 'text/plain;q=0.5, Application/OpenMetrics-Text; Version="1.0.0";q=0.75 , text/html,*/*;q=0'
    assert choices(field) == [
        Choice("text/html", {}, 1.0),
        Choice("application/openmetrics-text", {"version": "1.0.0"}, 0.75),
        Choice("text/plain", {}, 0.5),
        Choice("*/*", {}, 0.0),
    ]


@pytest.mark.parametrize(
    "field", ["", " ", ",,", ";q=1", "gzip;q=2", "gzip;q=-1", "gzip;q=nan", "gzip;q=", "gzip;q=0.1234"]
)
def test_what_cannot_be_read_is_left_out(field: str) -> None:
    """A member without a value or with an impossible weight says nothing."""
    assert choices(field) == []


@pytest.mark.parametrize(
    ("field", "accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.1", True),
        ("*", True),
        ("*;q=0.5, identity", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzipped", False),
    ],
)
def test_a_coding_is_accepted_when_it_is_named_or_meant_and_not_refused(field: str, accepted: bool) -> None:
    """`gzip` or `*` with a weight above 0; the coding's own weight goes before that of `*`."""
    assert accepts_coding(field, "gzip") is accepted
