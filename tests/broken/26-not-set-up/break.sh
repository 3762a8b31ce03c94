rm control/me
