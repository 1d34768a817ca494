"""The login side: the PAM module, its wire, the login daemon, and what the researcher runs."""
