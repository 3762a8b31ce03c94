echo 'joe@example.net' >>control/rcpthosts
