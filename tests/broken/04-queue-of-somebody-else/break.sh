chown 12345 queue
