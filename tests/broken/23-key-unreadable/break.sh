chmod 000 tls/key.pem
