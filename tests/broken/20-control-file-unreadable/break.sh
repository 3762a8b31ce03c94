echo 1000 >control/databytes
chmod 000 control/databytes
