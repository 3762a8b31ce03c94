printf '\n./Maildir/\n' >control/defaultdelivery
