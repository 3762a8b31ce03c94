printf -- '-r bl.example\n-t 60\n' >control/rbl
