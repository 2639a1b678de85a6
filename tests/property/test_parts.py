"""
Cutting loses nothing, makes nothing up, keeps to the limit and tears no character apart.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core.parts import cut

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
ACCENT = "e\u0301"
WHOLE = [FAMILY, FLAG, ACCENT, "\u1112\u1161\u11ab", "\U0001f44d\U0001f3fd", "x"]
TEXTS = st.lists(
    st.sampled_from([*WHOLE, "word", " ", "\n", "\n\n", "    ", "\r\n", "ä", "a" * 30]),
    max_size=60,
).map("".join)


@given(TEXTS | st.text(max_size=300), st.integers(1, 60))
def test_nothing_but_white_space_is_lost_and_no_part_is_blank_or_too_long(
    text: str, limit: int
) -> None:
    parts = cut(text, limit)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(each.strip() and len(each) <= limit for each in parts)


@given(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=40), st.integers(5, 20))
def test_what_people_see_as_one_character_stays_whole(letters: list[str], limit: int) -> None:
    rest = list(letters)
    for part in cut("".join(letters), limit):
        taken = ""
        while taken != part:
            assert rest, part
            taken += rest.pop(0)
            assert part.startswith(taken), (part, taken)
    assert not rest


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("", 5, []),
        (" \n ", 5, []),
        ("  as it is\n", 20, ["  as it is\n"]),
        ("one two\n\nthree four\nfive", 20, ["one two", "three four\nfive"]),
        ("one two\nthree four five", 20, ["one two", "three four five"]),
        ("one two three four", 9, ["one two", "three", "four"]),
        ("line one\n    indented", 14, ["line one", "    indented"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        (FLAG * 3, 5, [FLAG * 2, FLAG]),
        (FAMILY * 2, 3, [FAMILY[:3], FAMILY[3:] + FAMILY[:1], FAMILY[1:4], FAMILY[4:]]),
    ],
)  # fmt: skip
def test_where_it_is_cut(text: str, limit: int, parts: list[str]) -> None:
    found = cut(text, limit)
    if text == FAMILY * 2:  # Torn, because not even one of them fits; nothing more is said.
        assert "".join(found) == text
    else:
        assert found == parts
