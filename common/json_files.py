"""Files of JSON as bytes and text: lines, or one list; gzipped (.gz) or not, with the mark of Windows or not.

What JSON leaves open is refused: two equal keys in an object, half a character (a lone surrogate). A file that ends too
early is called cut off. A file that cannot be read ends the program in one line.
"""

import gzip
import json
import os
import re
import stat
import sys
import zlib

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK = re.compile(r"[ \t\n\r]*")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes one
COMMA = re.compile(r"[ \t\n\r]*(,?)[ \t\n\r]*")  # between two entries of a list


class RepeatedKey(Exception):
    pass


def without_repeated_keys(pairs):
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return made


def check_characters(value):
    """A ValueError names the field of a row that holds half a character: UTF-8 cannot write it."""
    if not isinstance(value, dict):
        return
    for name, content in value.items():
        try:
            json.dumps([name, content], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="replace").decode()
            raise ValueError(f"{shown}: half a character (a lone surrogate)") from None


def parse(line):
    """The value of one line of JSON, bytes. Else a ValueError that says 'field: reason'.

    NaN and infinity, which Python writes and JSON has not, are read as they are: it is for the check of a field to
    refuse them.
    """
    try:
        value = json.loads(line.decode(), object_pairs_hook=without_repeated_keys)
    except RecursionError:
        raise ValueError("row: not a line of JSON (nested too deeply)") from None
    except RepeatedKey as error:
        raise ValueError(f"{error}: stands twice in one object") from None
    except ValueError as error:  # cut in half, or not UTF-8
        cut = "the file is cut off here: " if is_cut(line, error) else ""
        raise ValueError(f"row: not a line of JSON ({cut}{error})") from None
    if b"\\ud" in line.lower():
        check_characters(value)
    return value


def is_cut(line, error):
    """Does a line that is not JSON end too early? Only the last line of a file may have no line feed."""
    if line.endswith(b"\n"):
        return False
    if (
        isinstance(error, json.JSONDecodeError) and error.pos == 0
    ):  # wrong from its first character on
        return False
    at_its_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
    return at_its_end or not line.rstrip().endswith(b"}")


def opened(path):
    """A file to read as bytes, unzipped; an OSError if it cannot be opened."""
    mode = os.stat(path).st_mode
    if not (
        stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    ):  # a pipe cannot be read twice, and may never end
        sys.exit(f"{path}: not a regular file")
    return gzip.open(path) if str(path).endswith(".gz") else open(path, "rb")


def lines_of(path):
    """Yield (number, line) of the lines of a file that are not blank."""
    number = 0
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, 1):
                content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if content.strip():
                    yield number, content
    except EOFError:
        sys.exit(f"{path}:{number + 1}: row: the gzipped file is cut off here")
    except (gzip.BadGzipFile, zlib.error) as error:
        sys.exit(f"{path}:{number + 1}: row: {error}")
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


def text_of(path):
    """The text of a file of JSON."""
    try:
        with opened(path) as file:
            return file.read().removeprefix(BYTE_ORDER_MARK).decode()
    except EOFError:
        sys.exit(f"{path}: cannot be read (the gzipped file is cut off)")
    except (gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        sys.exit(f"{path}: cannot be read ({error})")
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


def entries_of(path):
    """Yield (line on which it begins, entry) of a file that is one list of JSON, or values one after the other.

    One by one: all entries at once would take several times the memory of the text.
    """
    text = text_of(path)
    end = len(text.rstrip())
    position = BLANK.match(text).end()
    listed = text.startswith("[", position)
    if position < end and not listed and text[position] != "{":
        sys.exit(f"{path}: cannot be read (neither a list nor an object of JSON)")
    decoder = json.JSONDecoder(object_pairs_hook=without_repeated_keys)
    surrogates = SURROGATE.search(text)
    position = BLANK.match(text, position + listed).end()
    line = 1 + text.count("\n", 0, position)
    while position < end and not (listed and text[position] == "]"):
        start = position
        try:
            value, position = decoder.raw_decode(text, start)
            if surrogates:
                check_characters(value)
        except (json.JSONDecodeError, RecursionError) as error:
            whole = text.endswith("]" if listed else "}", 0, end) and getattr(error, "pos", 0) < end
            sys.exit(
                f"{path}: cannot be read ({'' if whole else 'cut off in '}line {line}: {error})"
            )
        except RepeatedKey as error:
            sys.exit(f"{path}:{line}: {error}: stands twice in one object")
        except ValueError as error:
            sys.exit(f"{path}:{line}: {error}")
        yield line, value
        comma = COMMA.match(text, position)
        position = comma.end()
        line += text.count("\n", start, position)
        if listed and position < end and text[position] != "]" and not comma[1]:
            sys.exit(f"{path}: cannot be read (line {line}: no comma between two entries)")
    if listed and position >= end:
        sys.exit(f"{path}: cannot be read (cut off in line {line}: its list has no end)")
    if listed and position + 1 < end:
        sys.exit(f"{path}: cannot be read (line {line}: more after the end of the list)")
