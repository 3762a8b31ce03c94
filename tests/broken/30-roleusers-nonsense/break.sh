echo 'smtpd joe' >control/roleusers
