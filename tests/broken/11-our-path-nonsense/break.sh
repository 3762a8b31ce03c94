: >control/tlscert
