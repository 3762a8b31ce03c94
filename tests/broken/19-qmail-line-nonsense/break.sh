printf 'mx\007example.org\n' >control/smtpgreeting
