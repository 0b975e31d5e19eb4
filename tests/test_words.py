import pytest

from metalora_jax.words import listed, plural


@pytest.mark.parametrize(
    ("names", "most", "said"),
    [
        ("", 3, ""),
        ("a", 3, "a"),
        ("abc", 3, "a, b, c"),
        ("abcd", 3, "a, b, c and 1 more"),
        ("abcdef", 4, "a, b, c, d and 2 more"),
    ],
)
def test_the_first_few_and_how_many_more(names, most, said):
    assert listed(list(names), most) == said


def test_one_is_no_plural():
    assert [plural(n, "dimension") for n in (0, 1, 2)] == ["0 dimensions", "1 dimension", "2 dimensions"]
