"""The close-code knowledge against RFC 6455 section 7.4, IANA's registry and the label contract."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter import closecodes
from exporter.closecodes import CLASSES, ENTRIES, RANGES, REGISTRY, Vocabulary

ROOT: Final = Path(__file__).parent.parent
LISTS_NOTHING: Final = Vocabulary(frozenset(), frozenset())
LISTS_SOME: Final = Vocabulary(listed=frozenset({4001, 4404}), going_away=frozenset({3001, 1011}))

REGISTERED: Final = {
    1000: ("Normal Closure", "normal"),
    1001: ("Going Away", "going_away"),
    1002: ("Protocol error", "protocol_error"),
    1003: ("Unsupported Data", "protocol_error"),
    1005: ("No Status Rcvd", "normal"),
    1006: ("Abnormal Closure", "abnormal"),
    1007: ("Invalid frame payload data", "protocol_error"),
    1008: ("Policy Violation", "policy"),
    1009: ("Message Too Big", "too_big"),
    1010: ("Mandatory Ext.", "protocol_error"),
    1011: ("Internal Error", "internal_error"),
    1012: ("Service Restart", "going_away"),
    1013: ("Try Again Later", "going_away"),
    1014: ("Bad Gateway", "internal_error"),
    1015: ("TLS handshake", "abnormal"),
    3000: ("Unauthorized", "policy"),
    3003: ("Forbidden", "policy"),
    3008: ("Timeout", "application"),
}
"""Names as IANA registers them, and the class each code belongs to."""

ON_THE_WIRE: Final = frozenset(REGISTERED) - {1005, 1006, 1015}

codes: Final = st.integers(0, 65535)
code_sets: Final = st.frozensets(codes, max_size=8)
vocabularies: Final = st.builds(Vocabulary, code_sets, code_sets)


def test_registry_has_every_registered_code_with_its_name_and_class() -> None:
    """The registry is IANA's: no code is missing, renamed or in another class, and 1004 has no entry."""
    assert {code: (entry.name, entry.close_class) for code, entry in REGISTRY.items()} == REGISTERED
    assert all(entry.code == code for code, entry in REGISTRY.items())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.span)
def test_every_entry_tells_the_whole_story(entry: closecodes.CloseCode | closecodes.CodeRange) -> None:
    """Meaning, when it is seen and how to fix it are whole ASCII sentences, and the class is a known one."""
    assert entry.close_class in CLASSES
    for text in (entry.meaning, entry.seen_when, entry.fix):
        assert text.endswith("."), text
        assert text.isascii(), text
        assert "  " not in text, text


def test_entries_ascend_and_cover_every_number() -> None:
    """Each number that fits in a Close frame has one entry: its own, or that of its range."""
    assert [entry.span for entry in ENTRIES if isinstance(entry, closecodes.CodeRange)] == [
        "0-999",
        "1004",
        "1016-2999",
        "3000-3999",
        "4000-4999",
        "5000-65535",
    ]
    spans = [entry.span for entry in ENTRIES]
    assert spans == sorted(spans, key=lambda span: int(span.partition("-")[0]))
    assert spans.index("3000") < spans.index("3000-3999")
    ranged = [code for entry in RANGES for code in entry.codes if code not in REGISTRY]
    assert sorted([*ranged, *REGISTRY]) == list(range(65536))


@pytest.mark.parametrize(
    ("code", "label"),
    [
        (None, "1005"),
        (0, "invalid"),
        (999, "invalid"),
        (1000, "1000"),
        (1001, "1001"),
        (1003, "1003"),
        (1004, "invalid"),
        (1005, "invalid"),
        (1006, "invalid"),
        (1007, "1007"),
        (1009, "1009"),
        (1014, "1014"),
        (1015, "invalid"),
        (1016, "reserved"),
        (2999, "reserved"),
        (3000, "3000"),
        (3001, "3xxx"),
        (3003, "3003"),
        (3008, "3008"),
        (3999, "3xxx"),
        (4000, "4xxx"),
        (4001, "4xxx"),
        (4999, "4xxx"),
        (5000, "invalid"),
        (65535, "invalid"),
    ],
)
def test_wire_label_without_a_list(code: int | None, label: str) -> None:
    """A registered code keeps its number, an empty Close is 1005, and whatever else there is shares a label."""
    assert LISTS_NOTHING.wire_label(code) == label


@pytest.mark.parametrize("code", sorted(ON_THE_WIRE))
def test_registered_wire_codes_are_their_own_label(code: int) -> None:
    """Every registered code that a Close frame may carry is counted by its number, with the registry's class."""
    assert LISTS_NOTHING.wire_label(code) == str(code)
    assert LISTS_NOTHING.close_class(str(code)) == REGISTERED[code][1]


@pytest.mark.parametrize(
    ("label", "close_class"),
    [
        ("1005", "normal"),
        ("1006", "abnormal"),
        ("1015", "abnormal"),
        ("3xxx", "application"),
        ("4xxx", "application"),
        ("invalid", "invalid"),
        ("reserved", "invalid"),
        ("unknown", "unknown"),
    ],
)
def test_labels_that_are_no_wire_code_have_a_class(label: str, close_class: str) -> None:
    """What stands for an empty Close, for none, or for many codes has a class too."""
    assert LISTS_NOTHING.close_class(label) == close_class


@pytest.mark.parametrize("label", ["", "1004", "2000", "5000", "04001", "\u0661\u0660\u0660\u0661", "²²²²", "9" * 5000])
def test_what_is_no_label_has_the_class_unknown(label: str) -> None:
    """A text that is no code label is unknown, whatever it looks like."""
    assert LISTS_NOTHING.close_class(label) == "unknown"


@pytest.mark.parametrize(
    ("code", "label", "close_class"),
    [
        (4001, "4001", "application"),
        (4404, "4404", "application"),
        (4000, "4xxx", "application"),
        (3001, "3001", "going_away"),
        (3002, "3xxx", "application"),
        (1011, "1011", "going_away"),
        (1009, "1009", "too_big"),
    ],
)
def test_listed_codes_are_counted_by_themselves(code: int, label: str, close_class: str) -> None:
    """Listed codes keep their number; going_away codes do too, and belong to the class going_away."""
    assert LISTS_SOME.wire_label(code) == label
    assert LISTS_SOME.close_class(label) == close_class


def test_a_registered_code_keeps_its_class_when_listed() -> None:
    """Listing a registered code changes nothing: it had a label and a class already."""
    assert Vocabulary(frozenset({3000}), frozenset()).close_class("3000") == "policy"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000, 65535])
def test_no_list_makes_an_illegal_code_legal(code: int) -> None:
    """An illegal code stays invalid whatever the configuration lists, and adds no label."""
    listing = Vocabulary(frozenset({code}), frozenset({code}))
    assert listing.wire_label(code) == "invalid"
    assert listing.labels() == LISTS_NOTHING.labels()
    assert listing.close_class("invalid") == "invalid"


def test_no_list_gives_a_reserved_code_a_label() -> None:
    """1016-2999 are counted together, listed or not."""
    listing = Vocabulary(frozenset({2000}), frozenset({2001}))
    assert [listing.wire_label(code) for code in (2000, 2001)] == ["reserved", "reserved"]


@pytest.mark.parametrize(("label", "close_class"), [("1005", "normal"), ("1006", "abnormal"), ("1015", "abnormal")])
def test_nothing_said_is_never_going_away(label: str, close_class: str) -> None:
    """Only a code that a service sends can say that it goes away: an empty Close and no Close keep their class."""
    assert Vocabulary(frozenset(), frozenset({1005, 1006, 1015})).close_class(label) == close_class


def test_labels_born_at_zero() -> None:
    """Born at zero: every registered wire code, 1005, 1006, each listed code in order, and the shared labels."""
    numbers = sorted(ON_THE_WIRE | {1005, 1006})
    assert LISTS_NOTHING.labels() == (*map(str, numbers), "invalid", "3xxx", "4xxx")
    assert LISTS_SOME.labels() == (*map(str, sorted({*numbers, 3001, 4001, 4404})), "invalid", "3xxx", "4xxx")


@given(vocabularies, st.none() | codes)
def test_wire_label_is_always_bounded(vocabulary: Vocabulary, code: int | None) -> None:
    """Whatever a peer sends and whatever is listed, the label is one born at zero or "reserved", with a class."""
    label = vocabulary.wire_label(code)
    assert label in {*vocabulary.labels(), "reserved"}
    assert vocabulary.close_class(label) in CLASSES
    assert vocabulary.close_class(label) != "unknown"


@given(vocabularies, codes)
def test_a_label_is_the_number_or_says_that_it_was_dropped(vocabulary: Vocabulary, code: int) -> None:
    """A legal code is either counted by its number or visibly folded; never as another number."""
    label = vocabulary.wire_label(code)
    assert label == str(code) or (label in closecodes.FOLDED) == closecodes.legal_on_wire(code)
    assert (label == "invalid") == (not closecodes.legal_on_wire(code))


@given(vocabularies)
def test_labels_are_unique_and_bounded_by_the_lists(vocabulary: Vocabulary) -> None:
    """A target has as many code labels as there are registered ones plus the codes it lists, each once."""
    labels = vocabulary.labels()
    assert len(labels) == len(set(labels))
    assert len(labels) <= len(LISTS_NOTHING.labels()) + len(vocabulary.listed | vocabulary.going_away)


@pytest.mark.parametrize(
    ("first", "last", "legal"),
    [
        (0, 999, False),
        (1000, 1003, True),
        (1004, 1006, False),
        (1007, 1014, True),
        (1015, 1015, False),
        (1016, 4999, True),
        (5000, 65535, False),
    ],
)
def test_legal_on_wire(first: int, last: int, legal: bool) -> None:
    """RFC 6455 section 7.4: what a Close frame may carry, over the whole 16-bit range."""
    assert {closecodes.legal_on_wire(code) for code in range(first, last + 1)} == {legal}


@given(codes)
def test_lookup_knows_every_number(code: int) -> None:
    """Any number that a Close frame can carry has a story, a conduct and a remedy, under its own number."""
    entry = closecodes.lookup(code)
    assert entry.code == code
    assert entry.close_class == LISTS_NOTHING.close_class(
        str(code) if code in REGISTRY else LISTS_NOTHING.wire_label(code)
    )
    assert all(answer for _, answer in closecodes.conduct(code).answers())
    assert closecodes.remedies(code)


@pytest.mark.parametrize("code", [-1, 65536, 10**9])
def test_lookup_refuses_what_no_close_frame_can_carry(code: int) -> None:
    """A close code is two bytes: everything outside is an error, not a range."""
    with pytest.raises(LookupError):
        closecodes.lookup(code)
    assert closecodes.range_of(code) is None


def test_range_of_speaks_for_unregistered_codes_only() -> None:
    """3000 has an entry of its own; 3001 shares that of its range."""
    assert closecodes.range_of(3000) is None
    found = closecodes.range_of(3001)
    assert found is not None
    assert found.span == "3000-3999"


def test_each_class_behaves_in_its_own_way() -> None:
    """Every class but unknown has a conduct, and 1001 one of its own, because clients send it too."""
    assert set(closecodes.CLASS_CONDUCT) == set(CLASSES) - {"unknown"}
    assert closecodes.conduct(1001) != closecodes.conduct(1012)
    assert "client" in closecodes.conduct(1001).closed_by


def test_alerts_exist() -> None:
    """Each alert that an operator is told to expect is one of the rules, spelled as there."""
    answers = [closecodes.conduct(code).alert for code in REGISTRY]
    told = {name for answer in answers for name in re.findall(r"\bWebSocket\w+", answer)}
    rules = yaml.safe_load((ROOT / "alerts" / "rules" / "websocket.yaml").read_text(encoding="utf-8"))
    assert told <= {rule.get("alert") for group in rules["groups"] for rule in group["rules"]}
    assert {"WebSocketMessageTooBigSpike", "WebSocketReconnectStorm"} <= told


def test_the_two_first_class_failures_differ_in_every_answer() -> None:
    """1001 and 1009 have nothing in common: who closes, whether it is an error, reconnecting, repeating, alert."""
    rows = closecodes.conduct_rows(1001, 1009)
    assert len(rows) == 5
    assert all(going_away != too_big for _, going_away, too_big in rows)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            1001,
            ("random first delay", "0-5 s", "exponential backoff", "full jitter", "cap", "30 s", "drain in batches"),
        ),
        (1009, ("in chunks", "Raise the receiver's limit", "must drop or split the message")),
    ],
)
def test_remedies_name_every_step(code: int, words: tuple[str, ...]) -> None:
    """The remedies of 1001 and 1009 name each step that helps, every one with the case in which it does."""
    remedies = closecodes.remedies(code)
    text = " ".join(remedy.do for remedy in remedies)
    assert [word for word in words if word not in text] == []
    assert all(remedy.when.startswith("If ") for remedy in remedies)


def test_other_codes_have_the_one_remedy() -> None:
    """A code without alternatives has its fix as the only remedy."""
    assert closecodes.remedies(1002) == (closecodes.Remedy("Always", REGISTRY[1002].fix),)


def test_contrasts_are_of_registered_pairs_in_order() -> None:
    """Each pair names two registered codes, the lower one first, and both occur in its sentence."""
    for (lower, higher), text in closecodes.CONTRASTS.items():
        assert lower < higher
        assert {lower, higher} <= set(REGISTRY)
        assert str(lower) in text
        assert str(higher) in text
    assert (1001, 1009) in closecodes.CONTRASTS
