chmod 700 .
