head -c 8192 /dev/urandom >queue/queue.db
chown --reference=queue queue/queue.db
