echo 'joe@example.org' >control/sendas
