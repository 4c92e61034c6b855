"""What the engine says of a query or a file, in our words. What is not known here is passed on as it was said."""

import re

_TYPES = (
    (r"VARCHAR|STRING_LITERAL", "text"),
    (r"(?:INTEGER|BIGINT)_LITERAL|U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|U?INT(?:8|16|32|64|128)", "whole number"),
    (r"DOUBLE|FLOAT|DECIMAL(?:\([^)]*\))?", "number"),
    (r"BOOLEAN|BOOL", "true or false"),
    (r"TIMESTAMP(?: WITH TIME ZONE|_\w+)?|TIMESTAMPTZ(?:_NS)?", "time"),
    (r"DATE", "date"),
    (r"INTERVAL", "duration"),
    (r"timestamp", "time"),
)
_CONVERT = (
    'where texts are meant, they are a category: tm.category("column"); else make numbers of them in the query, for example '
    "TRY_CAST(column AS DOUBLE), which gives null where it cannot; or correct the data"
)
_TIME = "write times as 2024-01-31 12:00:00; read others with strptime(column, '%d.%m.%Y'); or correct the data"
_PLAIN = "cast it to a plain type, for example to int64, or to texts"
_FILE = "is it whole, and of the format that its source declares? Write it again"
_WORDS = (
    (r'Referenced column "(.*)" not found', "there is no column '{0}'", ""),
    (r'Column "(.*)" referenced that exists in the SELECT clause', "there is no column '{0}'", ""),
    (r'Column "(.*)" in (?:REPLACE|EXCLUDE) list not found', "there is no column '{0}'", ""),
    (r'Column "(.*)" does not exist on (\w+) side of join', "there is no column '{0}' on the {1} side of the join", ""),
    (r'[Tt]able "(.*)" does not have a column named "(.*)"', "there is no column '{1}' in '{0}'", ""),
    (r'Ambiguous reference to column name "(.*)" \(use: (.*)\)', "column '{0}' is in several tables", "say which: {1}"),
    (r'Referenced table "(.*)" not found', "there is no table '{0}'", "a query names its sources by their keys"),
    (r"Table with name (\S+) does not exist", "there is no table '{0}'", "a query names its sources by their keys"),
    (r"(?:\w+ )?Function with name (\S+) does not exist", "there is no function '{0}'", ""),
    (r"No function matches the given name and argument types '(\S+?)\((.*)\)'", "{0} does not take {type1}", _CONVERT),
    (r'Could not choose a best candidate function for the function call "(\S+?)\((.*)\)"', "{0} does not take {type1}", _CONVERT),
    (r"Cannot compare values of type (.*?) and type (.*?) - ", "{type0} is compared with {type1}", _CONVERT),
    (
        r'invalid (timestamp|date|time) field format: "(.*)", expected .* when casting from source column (.*)',
        "'{1}' in column '{2}' is no {type0}",
        _TIME,
    ),
    (r'(?:invalid )?(timestamp|date|time) field (?:format|value out of range): "(.*?)"', "'{1}' is no {type0}", _TIME),
    (r'extract specifier "(.*)" not recognized', "'{0}' is no part of a time", "for example hour, day, month, year"),
    (r"Unknown TimeZone '(.*)'", "{0!r} is not a time zone", "write a name of the IANA database, for example Europe/Berlin"),
    (r"Could not convert string '(.*)' to (\S+) when casting from source column (.*)", "'{0}' in column '{2}' is no {type1}", _CONVERT),
    (r"Could not convert string '(.*)' to (\S+)", "'{0}' is no {type1}", _CONVERT),
    (r'Could not parse string "(.*)" according to format specifier "(.*)"', "'{0}' does not fit the format '{1}'", _CONVERT),
    (r"Unimplemented type for cast \((INTERVAL|DATE|TIME.*?) -> (.*)\)", "{type0} cannot become {type1}", "epoch(…) gives its seconds"),
    (r"Division by zero", "division by zero", "write nullif(…, 0) around the divisor"),
    (r"Unimplemented type for cast \((.*) -> (.*)\)", "{type0} cannot become {type1}", _CONVERT),
    (r"Overflow in (\w+) of \w+ \((.*)\)", "a number becomes too large: {1}", "make one side a DOUBLE"),
    (r"Out of Range Error: (?:.*?) of (\w+) \((.*)\)", "a number becomes too large: {1}", "make one side a DOUBLE"),
    (r'column "(.*)" must appear in the GROUP BY', "column '{0}' is neither in GROUP BY nor inside a function such as max", ""),
    (r"Malformed JSON in file .*?, at byte (\d+) in record/value (\d+): (.*?)\.?\s*$", "it is no JSON: record {1}, byte {0}: {2}", _FILE),
    (r"Unsupported Internal Arrow Type (?:_pl)?(\w+)", "a column has the type {0}, which no query takes", _PLAIN),
    (r"Data type '(.*)' not recognized", "it has the type {0}, which no query takes", _PLAIN),
    (
        r'Could not write file \\?"(.*?)\\?": ([^"]*)',
        "{0} cannot be written: {1}",
        "look at the disk; TMPDIR names the folder for what is not kept",
    ),
    (r"WHERE clause cannot contain aggregates", "it holds an aggregate", ""),
    (r"WHERE clause cannot contain window functions", "it holds a window function", ""),
    (r"No magic bytes found|too small to be a Parquet|don't know what type", "it is no Parquet file, or a damaged one", _FILE),
)


def ours(said: str) -> tuple[str, str]:
    """What is wrong, in a sentence, and what to do (empty where nothing better is known), from the engine's own words.

    >>> ours("Binder Error: No function matches the given name and argument types '+(VARCHAR, INTEGER_LITERAL)'. You might …")[0]
    '+ does not take text, whole number'
    """
    for pattern, words, hint in _WORDS:
        found = re.search(pattern, said, re.MULTILINE)
        if found:
            plain = {f"type{number}": plain_type(value) for number, value in enumerate(found.groups())}
            return words.format(*found.groups(), **plain), hint
    return re.sub(r"^[A-Z][\w ]* Error: ", "", said.splitlines()[0]), ""


def with_article(kind: str) -> str:
    """What a value of a type is.

    >>> with_article("BIGINT"), with_article("VARCHAR"), with_article("BOOLEAN")
    ('a whole number', 'a text', 'true or false')
    """
    plain = plain_type(kind)
    return plain if kind.startswith("BOOL") or not plain.islower() else f"a {plain}"


def plain_type(types: str) -> str:
    """Names of types as people say them."""
    for pattern, word in _TYPES:
        types = re.sub(rf"\b(?:{pattern})(?!\w)", word, types)
    return types
