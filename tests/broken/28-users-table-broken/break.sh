echo '=joe:no' >users/assign
