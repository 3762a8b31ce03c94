"""The SQL that queue/sqlite.py says more than once. Constants stand in it where they can: to bind values costs more."""

from __future__ import annotations

from pillarbox.queue.engine import State

_MESSAGE = "id, incarnation, born, sender, size, uid, pid, spool"
_RECIPIENT = "number, address, state, attempts, due, reason"

CLAIM = f"""
SELECT message, {_RECIPIENT} FROM recipients
WHERE state = {State.WAITING.value} AND (due, message, number) > (?, ?, ?) ORDER BY due, message, number LIMIT ?
"""
LISTING = f"SELECT {_MESSAGE} FROM messages WHERE id > ? ORDER BY id LIMIT ?"
SHOW = f"SELECT {_MESSAGE} FROM messages WHERE id = ?"
SHOW_RECIPIENTS = f"SELECT message, {_RECIPIENT} FROM recipients WHERE message = ? ORDER BY number"
# A recipient that is held stays held, a done one done, and a failed one failed, whatever a late outcome says.
MARK = f"""
UPDATE recipients SET state = max(state, ?), attempts = attempts + ?, due = ?, reason = ?
WHERE message = ? AND number = ? AND state < {State.DONE.value}
"""
FINISH = f"UPDATE recipients SET state = {State.DONE.value} WHERE message = ? AND number = ?"
RECIPIENTS = f"INSERT INTO recipients VALUES (?, ?, ?, {State.WAITING.value}, 0, ?, x'')"
FOLDED = """
SELECT id, born, addresses FROM messages
WHERE addresses <> x'' AND NOT EXISTS (SELECT 1 FROM recipients WHERE message = id) ORDER BY id
"""
OPEN = f"SELECT number FROM recipients WHERE message = ? AND state <> {State.DONE.value}"
FAILURES = f"""
SELECT message, {_RECIPIENT} FROM recipients
WHERE message = ? AND number > ? AND state = {State.FAILED.value} ORDER BY number LIMIT ?
"""
WANT_ENDING = f"""
SELECT {_MESSAGE} FROM failed JOIN messages ON id = message WHERE over = 1 AND message > ? ORDER BY message LIMIT ?
"""
NOTE = "INSERT OR IGNORE INTO failed SELECT id, 0 FROM messages WHERE id = ?"
OVER = f"""
UPDATE failed SET over = 1 WHERE message = ? AND over = 0 AND NOT EXISTS
    (SELECT 1 FROM recipients WHERE message = failed.message AND state < {State.DONE.value})
"""
