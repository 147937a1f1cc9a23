"""The role of an API cell: OpenStack REST in, commands down, the tenant's view kept."""
