"""What a language model has said -> text that can be compared with an answer.

The rules are those of VQA's evaluation (Antol et al., 2015; https://visualqa.org/evaluation.html) and of GVTBench's
(https://github.com/TencentARC/GVT, gvt/modules), with what is odd about them kept where it is said so.
"""

import re

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ARTICLES = ("a", "an", "the")
_PUNCTUATION = (*';/[]"{}()=+\\_->', *"<@`,?!")
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD_OF_NO_NUMBER = re.compile(r"\.(?!\d)")
_DIGIT_OF = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBER_WORDS)}

_APOSTROPHES = re.findall(
    r"\S+",
    """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
    it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
    somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're
    they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
    why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    """,
)
_TWO_APOSTROPHES = re.findall(
    r"\S+",
    """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've someone'd've something'd've there'd've they'd've
    we'd've who'd've wouldn't've y'all'll you'd've
    """,
)
_CONTRACTIONS = {word.replace("'", ""): word for word in _APOSTROPHES}
for _word in _TWO_APOSTROPHES:  # with either one left out
    _first, _second, _third = _word.split("'")
    _CONTRACTIONS |= {f"{_first}{_second}'{_third}": _word, f"{_first}'{_second}{_third}": _word}
_CONTRACTIONS |= {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "somebodyd've": "somebody'd've",
    "somebody'dve": "somebody'd've",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def published_sentence(said: str) -> str:
    """GVT's first sentence: up to the first period, after one that stands at the beginning, and closed by one; "" of nothing.

    Every period counts, so that "1.5" is cut after the 1; line breaks go, so that "yes" and "no" on two lines are "yesno".
    """
    words = said.replace(".", " . ").replace("\n", "").split()
    if not words:
        return ""
    if words[0] == ".":
        words = words[1:]
    if "." in words:
        words = words[: words.index(".")]
    return " ".join(words) + "."


def first_sentence(said: str) -> str:
    """Up to a line break, or a period that is no part of a number, of what is said after leading blanks and periods."""
    line = next((line for line in (line.strip().lstrip(". ") for line in said.splitlines()) if line), "")
    return _PERIOD_OF_NO_NUMBER.split(line)[0].strip()


def without_punctuation(text: str) -> str:
    """VQA's rule: a sign goes where the text has it beside a blank, or a comma within a number; else a blank comes.

    Periods go where no digit follows.
    """
    cleaned = text
    for sign in _PUNCTUATION:
        beside_a_blank = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if beside_a_blank or _NUMBER_WITH_COMMA.search(text) else " ")
    return _PERIOD_OF_NO_NUMBER.sub("", cleaned)


def with_digits(text: str) -> str:
    """VQA's rule: lower case, numbers up to ten as digits, no articles, apostrophes where they belong."""
    words = [_DIGIT_OF.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def as_words(text: str) -> str:
    """Both rules."""
    return with_digits(without_punctuation(text.strip()))


def holds_words(text: str, words: str) -> bool:
    """Whether these words stand in the text, one after the other and whole: "no" does not stand in "not"."""
    return bool(words) and f" {words} " in f" {text} "
