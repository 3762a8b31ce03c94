"""`sendmail -bs`: SMTP on standard input and output, for programs of this machine that speak it.

As in qmail it is qmail-smtpd with RELAYCLIENT set: mail to any host is taken, of any size, and nobody logs in: whoever
can run this could send the same with `sendmail -t`. The queue learns from the kernel who it is.
"""

from __future__ import annotations

import os
from typing import Final

from pillarbox.programs import qmail_smtpd

ENVIRONMENT: Final = {
    "RELAYCLIENT": "",
    "DATABYTES": "0",
    "PROTO": "TCP",
    "TCPLOCALIP": "127.0.0.1",
    "TCPREMOTEIP": "127.0.0.1",
    "TCPLOCALHOST": "localhost",
    "TCPREMOTEHOST": "localhost",
    "TCPREMOTEINFO": "sendmail-bs",
}
"""What qmail's sendmail sets, unless $PROTO says that a client is there already."""


def main(arguments: list[str]) -> int:
    """qmail-smtpd's exit status. Arguments are ignored."""
    if "PROTO" not in os.environ:
        os.environ.update(ENVIRONMENT)
    return qmail_smtpd.main([])
