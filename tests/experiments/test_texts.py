"""Texts as tokens: by words and by a function of the user's."""

import numpy as np
import pytest

from experiments.cli.main import UserError
from experiments.config import values
from experiments.tasks import texts
from experiments.tasks.texts import Form, Tokenizer, by_tokenizer, by_words
from tests.support import tokenizers


def _tokenizer(name):
    return Tokenizer(f"tests.support.tokenizers:{name}", getattr(tokenizers, name))


def test_words_are_the_vocabulary_s_in_order():
    vocabulary, left_out = texts.vocabulary_of(["A red Circle", "the RED one; \u732b_\u732b", "x" * 51])
    assert vocabulary == ("a", "circle", "one", "red", "the", "\u732b")
    assert left_out == 1
    assert by_words(vocabulary, is_strict=False)("text", "the blue, red\u732b the").tolist() == [5, 5]
    assert by_words(vocabulary, is_strict=True)("text", "the red \u732b").tolist() == [5, 4, 6]


def test_letters_keep_their_marks_and_are_composed():
    """As words of Hindi have them, and as macOS writes the names of files."""
    hindi = "\u0939\u093f\u0928\u094d\u0926\u0940"
    assert texts.words_of(f"{hindi}, {hindi}!") == [hindi, hindi]
    assert texts.words_of("Cafe\u0301 U\u0308ber_x2") == ["caf\u00e9", "\u00fcber", "x2"]


def test_of_too_many_words_the_rarest_are_left_out(monkeypatch):
    monkeypatch.setattr(texts, "MOST_WORDS", 3)
    assert texts.vocabulary_of(["d c b a", "d b", "c"]) == (("b", "c", "d"), 1)
    assert values.MOST_WORDS == 10_000


def test_texts_are_padded_cut_and_not_known_where_nothing_is_read():
    rows = [np.array([3, 1], np.int32), np.array([], np.int32), np.array([2, 4, 5, 6], np.int32)]
    found = Form(3, 7, None).stacked(rows)
    np.testing.assert_array_equal(found.value.values, [[3, 1, 0], [0, 0, 0], [2, 4, 5]])
    np.testing.assert_array_equal(found.value.mask, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(found.is_known, [True, False, True])


def test_vectors_are_padded_likewise():
    found = Form(3, None, 3).stacked([tokenizers.vectors("two words")])
    np.testing.assert_array_equal(found.value.values[0, :2], tokenizers.vectors("two words"))
    np.testing.assert_array_equal(found.value.values[0, 2], 0)
    np.testing.assert_array_equal(found.value.mask, [[True, True, False]])


def test_the_form_is_that_of_what_is_read():
    read = by_tokenizer(_tokenizer("ids"))
    assert texts.form_of([read("text", text) for text in ("a red one", "", "a green one")], 5) == Form(5, 6, None)
    assert texts.form_of([by_tokenizer(_tokenizer("vectors"))("text", "a b")], 2) == Form(2, None, 3)
    one = by_tokenizer(_tokenizer("one_vector"))("text", "three e")
    np.testing.assert_array_equal(one, np.array([[7, 3]], np.float32))
    with pytest.raises(UserError, match="tokenizer must give tokens of one kind for all texts"):
        texts.form_of([one, read("text", "a")], 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            tokenizers.letters,
            r"must give integers \[n\] in 0..999999 or finite numbers \[n, d\], got <U1 of shape \(2,\)",
        ),
        (tokenizers.fails, r"failed at prompt 'hi': KeyError: 'hi'"),
        (lambda text: [-1], r"got int64 of shape \(1,\) for prompt 'hi'"),
        (lambda text: [10**6], r"got int64 of shape \(1,\)"),
        (lambda text: [[np.nan]], r"got float64 of shape \(1, 1\)"),
        (lambda text: [[1e300]], r"got float64 of shape \(1, 1\)"),
        (lambda text: [[1, 2]], r"got int64 of shape \(1, 2\)"),
        (lambda text: 3, r"got int64 of shape \(\)"),
        (lambda text: None, r"got object of shape \(\)"),
        (lambda text: [True], r"got bool of shape \(1,\)"),
    ],
)
def test_what_is_no_tokens_is_refused_by_the_tokenizer_s_name(function, message):
    with pytest.raises(UserError, match=f"^tokenizer mine:read .*{message}"):
        by_tokenizer(Tokenizer("mine:read", function))("prompt", "hi")


@pytest.mark.parametrize(
    ("form", "prompt", "message"),
    [
        (
            Form(3, 5, None),
            "a blue one",
            "prompt must be read as integers under 5, as this run's texts were; got integ",
        ),
        (Form(2, 9, None), "a blue one", "prompt must have 1 to 2 tokens, got 3: 'a blue one'"),
        (Form(2, 9, None), " ", "prompt must have 1 to 2 tokens, got 0"),
        (
            Form(3, None, 4),
            "a blue one",
            "prompt must be read as vectors of width 4, as this run's texts were; got integ",
        ),
    ],
)
def test_a_prompt_of_another_form_than_the_run_s_texts_is_refused(form, prompt, message):
    with pytest.raises(UserError, match=message):
        texts.asked(form, by_tokenizer(_tokenizer("ids")), "prompt", [prompt])
