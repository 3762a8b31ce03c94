echo perhaps >control/rcptcheck
