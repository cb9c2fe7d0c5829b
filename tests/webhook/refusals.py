"""What every refusal has in common, whatever was wrong."""

import json
from collections.abc import Collection

from exporter.web.errors import ERRORS, ErrorToken
from tests.support.reporting import ERRORS as COUNTED_ERRORS
from tests.support.reporting import EVENTS, Answer, counts, growth
from tests.support.scraping import Page

RETRY_LATER = {429, 503, 507}


def assert_error(answer: Answer, status: int, token: ErrorToken) -> None:
    """The one shape of errors: a token and a fixed sentence, as JSON that nobody takes for anything else."""
    body = json.loads(answer.body)
    assert (answer.status, body["error"]) == (status, token)
    assert body["detail"] == ERRORS[token].detail
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert ("retry-after" in answer.fields) == (status in RETRY_LATER)


def assert_refused(answer: Answer, status: int, token: ErrorToken) -> None:
    """The whole request is refused: the error, and nothing besides."""
    assert_error(answer, status, token)
    assert json.loads(answer.body).keys() == {"error", "detail"}


def assert_none_accepted(answer: Answer, token: ErrorToken, rejected: Collection[tuple[int, str]]) -> None:
    """There were events, by index and error, and none of them can be counted; the error is the first one's."""
    assert_error(answer, 422, token)
    body = json.loads(answer.body)
    assert body.keys() == {"error", "detail", "accepted", "duplicate", "rejected", "items"}
    assert (body["accepted"], body["duplicate"], body["rejected"]) == (0, 0, len(rejected))
    assert body["items"] == [{"index": index, "result": "rejected", "error": error} for index, error in rejected]


def assert_only_counted_as_error(before: Page, after: Page, token: ErrorToken, rejected: int = 0) -> None:
    """Nothing was counted but the error, and the events that were rejected for it."""
    assert counts(after) == counts(before)
    assert growth(before, after, COUNTED_ERRORS, "error") == {(token,): 1}
    expected = {("rejected", token): rejected} if rejected else {}
    assert growth(before, after, EVENTS, "result", "reason") == expected
