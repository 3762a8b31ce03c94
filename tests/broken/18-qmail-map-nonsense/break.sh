echo 'example.net' >control/virtualdomains
