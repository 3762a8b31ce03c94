"""Which file a word of a run line starts, and whether that is `true`, to which every password is good."""

from __future__ import annotations

import os

_MOST_LINKS = 40  # Linux follows no more
_TRUE = b"true"


def found(word: bytes, path: bytes) -> bytes | None:
    """The file that execvp starts for `word` with this $PATH; None where there is none. A word with a / is one."""
    if b"/" in word:
        return word
    files = (os.path.join(place or b".", word) for place in path.split(b":")) if word else ()
    return next((file for file in files if os.path.isfile(file) and os.access(file, os.X_OK)), None)


def is_true(word: bytes, path: bytes) -> bool:
    """Is it `true`, itself or by symbolic links? Any name on the way counts: in the end `true` may be a link to one
    program of many names (busybox), and that may as well be a shell."""
    file = found(word, path) or word
    for _ in range(_MOST_LINKS):
        if os.path.basename(file) == _TRUE:
            return True
        try:
            file = os.path.join(os.path.dirname(file), os.readlink(file))
        except OSError:
            return False
    return False
