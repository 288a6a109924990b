"""Word error rate, the usual measure of a transcript.

It is the least number of words to replace, leave out or put in that turns the one text into the other (Levenshtein's
distance over words), divided by the number of words in the reference: 0 is perfect, and it can exceed 1.
"""

from __future__ import annotations

import re


def words_of(text: str) -> list[str]:
    """The words in lower case, without punctuation; an apostrophe inside a word stays."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance, row by row."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        above, row = row, [i]
        for j, found in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (wanted != found)))
    return row[-1]


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Errors per word of the reference.

    Raises:
        ValueError: if the reference has no words.
    """
    wanted = words_of(reference)
    if not wanted:
        raise ValueError("the reference has no words")
    return distance(wanted, words_of(hypothesis)) / len(wanted)
