: >control/listen
