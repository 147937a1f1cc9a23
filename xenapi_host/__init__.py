"""How one thing is done on one XenServer pool, through a XenAPI session, real or simulated."""
