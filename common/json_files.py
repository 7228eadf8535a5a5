"""Files of JSON as bytes and text: lines, or a single list; gzipped (.gz) or not.

A byte order mark, which Windows writes, is skipped. What JSON leaves open is refused: two equal
keys in an object, half a character (a lone surrogate). A file that ends too early is called cut
off. A file that cannot be read ends the program in one line.
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
    """The object of these (key, value) pairs, for json's object_pairs_hook."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    keys = [key for key, _ in pairs]
    repeated = [key for key in keys if keys.count(key) > 1]
    raise RepeatedKey(repeated[0])


# Lines


def parse(line):
    """The value of a line of JSON, bytes. Else a ValueError that says 'field: reason'.

    NaN and infinity, which Python writes and JSON does not have, are read: it is for the check of
    a field to refuse them.
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


def is_cut(line, error):
    """Does a line that is not JSON end too early? Only a file's last line may lack a line feed."""
    if line.endswith(b"\n"):
        return False
    if not isinstance(error, json.JSONDecodeError):  # not UTF-8: perhaps cut within a character
        return not line.rstrip().endswith(b"}")
    if error.pos == 0:  # wrong from its first character on
        return False
    return error.pos >= len(error.doc.rstrip()) or not line.rstrip().endswith(b"}")


def opened(path):
    """A file to read as bytes, unzipped; an OSError if it cannot be opened."""
    mode = os.stat(path).st_mode
    # A pipe cannot be read twice, and may never end. A directory gives an OSError below.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        sys.exit(f"{path}: not a regular file")
    return gzip.open(path) if str(path).endswith(".gz") else open(path, "rb")


def lines_of(path):
    """Yield (number, line) of the lines of a file that are not blank."""
    number = 0
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, 1):
                content = line
                if number == 1:
                    content = line.removeprefix(BYTE_ORDER_MARK)
                if content.strip():
                    yield number, content
    except EOFError:
        sys.exit(f"{path}:{number + 1}: row: the gzipped file is cut off here")
    except (gzip.BadGzipFile, zlib.error) as error:
        sys.exit(f"{path}:{number + 1}: row: {error}")
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


# A list, or values one after the other


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
    """Yield (line on which it begins, entry) of a JSON list, or of values one after the other.

    One by one: all entries at once would take several times the memory of the text.
    """
    text = text_of(path)
    end = len(text.rstrip())
    position = BLANK.match(text).end()
    is_list = text.startswith("[", position)
    if position < end and not is_list and text[position] != "{":
        sys.exit(f"{path}: cannot be read (neither a list nor an object of JSON)")
    if is_list:
        position = BLANK.match(text, position + 1).end()
    decoder = json.JSONDecoder(object_pairs_hook=without_repeated_keys)
    has_surrogates = SURROGATE.search(text) is not None
    line = 1 + text.count("\n", 0, position)
    while position < end and not (is_list and text[position] == "]"):
        start = position
        try:
            value, position = decoder.raw_decode(text, start)
            if has_surrogates:
                check_characters(value)
        except (json.JSONDecodeError, RecursionError) as error:
            refuse_entry(path, line, error, text, end, is_list)
        except RepeatedKey as error:
            sys.exit(f"{path}:{line}: {error}: stands twice in one object")
        except ValueError as error:
            sys.exit(f"{path}:{line}: {error}")
        yield line, value
        comma = COMMA.match(text, position)
        position = comma.end()
        line += text.count("\n", start, position)
        if is_list and position < end and text[position] != "]" and not comma[1]:
            sys.exit(f"{path}: cannot be read (line {line}: no comma between two entries)")
    if is_list:
        check_end_of_list(path, line, position, end)


def refuse_entry(path, line, error, text, end, is_list):
    """Exit: an entry is not JSON; the file may be cut off there."""
    closing = "]" if is_list else "}"
    has_end = text.endswith(closing, 0, end) and getattr(error, "pos", 0) < end
    cut = "" if has_end else "cut off in "
    sys.exit(f"{path}: cannot be read ({cut}line {line}: {error})")


def check_end_of_list(path, line, position, end):
    """Exit unless the list ends at this position, as the last character of the file."""
    if position >= end:
        sys.exit(f"{path}: cannot be read (cut off in line {line}: its list has no end)")
    if position + 1 < end:
        sys.exit(f"{path}: cannot be read (line {line}: more after the end of the list)")
