"""The REST front door: OpenStack Compute v2.1 and the few Identity and Image routes its clients need. `routes` is the
API; each module of a noun goes parse -> service -> view."""
