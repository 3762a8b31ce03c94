# The runner holds the lock, as a server would.
touch run/lock
