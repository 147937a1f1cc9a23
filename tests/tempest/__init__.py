"""OpenStack's own judge of a Compute API, Tempest, on a tree whose users are in a real Keystone."""
