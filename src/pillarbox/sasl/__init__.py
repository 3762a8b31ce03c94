"""The server's side of SASL (RFC 4422) as SMTP (RFC 4954) and POP3 (RFC 5034) frame it: base64 lines in and out.
The client's is `pillarbox.sasl.claim`."""

from pillarbox.sasl.exchange import OFFERED_KEYED, OFFERED_PLAIN, Challenge, Exchange, Failed, Problem, Step, start

__all__ = ["OFFERED_KEYED", "OFFERED_PLAIN", "Challenge", "Exchange", "Failed", "Problem", "Step", "start"]
