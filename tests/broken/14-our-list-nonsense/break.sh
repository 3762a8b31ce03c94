echo 'checkpassword' >control/checkers
