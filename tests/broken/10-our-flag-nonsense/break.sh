echo yes >control/authcleartext
