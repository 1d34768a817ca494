"""Where accounts live: one module for each kind of store, all of them `ports.AccountStore`."""
