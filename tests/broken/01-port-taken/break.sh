echo "smtp 127.0.0.1:$taken" >control/listen
