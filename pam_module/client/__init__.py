"""The researcher's side: iam-ssh and iam-askpass. It runs on any machine with an OpenSSH client and needs no root."""
