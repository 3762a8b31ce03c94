echo 'smtp 192.0.2.1:0' >control/listen
