echo 'smtpd:root' >control/roleusers
