echo ten >control/databytes
