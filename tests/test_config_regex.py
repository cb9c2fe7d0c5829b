"""Regular expressions that cannot hold anything up."""

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.regex import MAX_SIZE, Regex

ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\w", r"\s", r"\d", r"\b", "^", "$", r"\A", r"\Z", r"\B", "\n"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda part: f"({part})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}?", "{2,}"])).map(
            lambda parts: f"(?:{parts[0]}){parts[1]}"
        ),
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text("ab1 \n-", max_size=10), st.sampled_from(["", "(?i)", "(?s)", "(?is)"]))
def test_it_finds_what_re_finds(pattern: str, text: str, flags: str) -> None:
    """Whatever is supported means what it means to `re`."""
    assert Regex(flags + pattern).search(text) is bool(re.search(flags + pattern, text))


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "", True),
        ("ready|ok", "not ok", True),
        (r'^\{"type":\s*"welcome"', '{"type": "welcome"}', True),
        (r"\bok\b", "token", False),
        ("(?i)WELCOME", "welcome", True),
        ("(?s)a.b", "a\nb", True),
        ("a.b", "a\nb", False),
        ("ok$", "ok\n", True),
        (r"ok\Z", "ok\n", False),
        ("[ä-ü]{3}", "xöüäx", True),
        (r"[\]^-]", "^", True),
        ("[^]a]", "]", False),
        (".", "\U0001f600", True),
    ],
)
def test_what_patterns_mean(pattern: str, text: str, found: bool) -> None:
    """A search, anywhere in the text."""
    assert Regex(pattern).search(text) is found


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*)*b", "(a?){40}a{40}b", r"(\w+\s?)*$b", "a*a*a*a*a*b"])
def test_no_text_takes_long(pattern: str) -> None:
    """Patterns with which `re` would take years for a thousand letters take no time."""
    regex = Regex(pattern)
    began = time.monotonic()
    assert not regex.search("a" * 1024)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:){20000000}",
        "(){0,20000000}",
        "((((((){20}){20}){20}){20}){20}){5}",
        "(" * 5000,
        *("(" * depth + "x" + ")" * depth for depth in (250, 330, 1000)),
        *("(?:" * depth + "x" + "|)*" * depth for depth in (100, 250, 1000)),
    ],
    ids=lambda pattern: pattern[:12],
)
def test_large_patterns_are_taken_or_refused_at_once(pattern: str) -> None:
    """Repetitions of nothing and deep nesting neither take long nor exhaust the stack."""
    began = time.monotonic()
    try:
        assert Regex(pattern).search("x")
    except ValueError as error:
        assert str(error) == f"is too large: with its repetitions written out it has more than {MAX_SIZE} steps"  # noqa: PT017
    assert time.monotonic() - began < 2


def test_the_grammar_is_loaded_where_there_is_a_pattern() -> None:
    """Without `expect` nothing depends on a private module of the standard library."""
    program = (
        "import sys; from exporter import config; from exporter.sources.probe import Probes;"
        "config.load({}, probes=['a=ws://a']); assert 'exporter.config.regex' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(", "is not a regular expression: missing ), unterminated subpattern at position 0"),
        ("*", "is not a regular expression: nothing to repeat at position 0"),
        ("\\\u202e[", r"is not a regular expression: unterminated character set at position 2"),
        ("a{1,99999999999}", "is not a regular expression: the repetition number is too large"),
        ("(?=a)", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        ("(?<!a)b", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        (r"(a)\1", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        ("(?>a)", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        ("a*+", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        ("(?i:a)", "has a lookaround, a backreference, an atomic group or flags of a group: not supported"),
        ("(?m)a", "has a flag that is not supported; those that are: (?i) and (?s)"),
        ("(a{100}){100}", f"is too large: with its repetitions written out it has more than {MAX_SIZE} steps"),
        ("a{0,99999}", f"is too large: with its repetitions written out it has more than {MAX_SIZE} steps"),
    ],
)
def test_what_is_refused(pattern: str, fault: str) -> None:
    """Faulty, unsupported and huge patterns are refused with a plain sentence."""
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        Regex(pattern)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
