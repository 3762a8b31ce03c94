echo nonsense >tls/cert.pem
