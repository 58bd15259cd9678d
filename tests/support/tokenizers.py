"""Functions that a user might name as --tokenizer, right ones and wrong ones."""

import numpy as np

WORDS = ("one", "a", "plain", "framed", "red", "green", "blue")


def ids(text):
    """Integers: the places of the known words."""
    return [WORDS.index(word) for word in text.lower().replace(",", "").replace("!", "").split()]


def vectors(text):
    """Numbers [n, 3]: the length of each word, its first letter, and 1."""
    return np.array([[len(word), ord(word[0]) / 100, 1.0] for word in text.split()], np.float32)


def one_vector(text):
    """Numbers [2]."""
    return np.array([len(text), text.count("e")], np.float64)


def letters(text):
    """No numbers."""
    return list(text)


def fails(text):
    """An error of the user's own."""
    raise KeyError(text)


def other_width(text):
    """Numbers [n, 4]."""
    return np.ones((1, 4), np.float32)


NUMBER = 3
