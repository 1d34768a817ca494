"""Who is who: the ledger, what is made from it for the services, and the receipts of both."""
