echo ten >control/spoolsize
