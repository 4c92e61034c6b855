"""Text of users, and of their data, as a terminal may have it: without the characters by which it is steered."""

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def plain(text: str) -> str:
    r"""A text without control characters (C0 and C1; line ends and tabs stay).

    >>> plain("late\x1b[2J parcels\x07\n")
    'late[2J parcels\n'
    """
    return text.translate(_CONTROLS)
