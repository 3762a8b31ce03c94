cp "$other/cert.pem" tls/cert.pem
