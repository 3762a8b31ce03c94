echo 'smtp localhost' >control/listen
