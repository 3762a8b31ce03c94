: >control/me
rm control/smtpgreeting 2>/dev/null || true
