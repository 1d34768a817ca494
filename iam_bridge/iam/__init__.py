"""Everything that is said to an identity provider: keys, verification, introspection, members."""
